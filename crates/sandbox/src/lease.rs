//! An exclusive hold on a container.

use std::sync::Arc;
use std::time::Duration;

use belljar_ids::ContainerId;
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::cell::{Cell, Code};
use crate::checkpoint::{self, LayerReader};
use crate::container::{Container, Hold};
use crate::edit::{self, EditCommand, EditFailure, EditOutcome};
use crate::environment::INPUT_DIRECTORY;
use crate::error::{DeathReason, PutError, ReadError, SandboxError};
use crate::files::{self, FileContent};
use crate::host::SharedHost;
use crate::keeper::Request;
use crate::names;
use crate::options::Isolation;
use crate::outcome::{CellOutcome, LiveChunk};
use crate::parked::{self, NoOutcome, Progress};
use crate::tools::CodeTools;

/// What a cell may take, and who listens.
#[derive(Debug, Clone)]
pub struct CellOptions {
    /// Wall time; cut to `cell_wall_s_max`.
    pub wall: Duration,
    /// Interrupts the cell as Ctrl-C does, and ends it by force when it has not ended 2 s later.
    pub cancel: CancellationToken,
    /// Gets the kept bytes as they come. A slow listener slows the writer; a closed channel is no error.
    pub live: Option<mpsc::Sender<LiveChunk>>,
}

/// An exclusive hold on a container, given back when dropped. Every method may be dropped at any await point: a
/// running cell is interrupted then, as [`CellOptions::cancel`] would, a half-written file does not appear.
pub struct Lease {
    pub(crate) container: Arc<Container>,
    pub(crate) host: SharedHost,
    /// Gives the container back; dropped after the rest.
    pub(crate) _hold: Hold,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.container.used_at((self.host.config.clock)());
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("container", &self.container.id).finish_non_exhaustive()
    }
}

impl Lease {
    /// The container's id.
    #[must_use]
    pub fn container(&self) -> &ContainerId {
        &self.container.id
    }

    /// What stands between the container's code and the host.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.container.isolation
    }

    /// Runs a command with `bash -c`, to one outcome.
    ///
    /// Standard input is empty. What the command leaves running lives on after a normal end, and is killed with the
    /// rest of the container's processes when this or a later cell is killed or times out, or when it leaves a later
    /// command less than an eighth of `processes_max`.
    ///
    /// # Errors
    /// [`SandboxError`] when there is no outcome: a command no shell can be given, a shell that could not be started, a
    /// dead container.
    pub async fn bash(&mut self, command: &str, options: CellOptions) -> Result<CellOutcome, SandboxError> {
        let code = Code::bash(command)?;
        self.run(code, options).await
    }

    /// As [`Lease::bash`], for a command that may call tools: it is parked when it has called some and all of its
    /// code waits. The lease goes with it, and comes back with the outcome.
    ///
    /// Each tool is a command, behind all others on `PATH`: its argument, or else its standard input, is a JSON object;
    /// it prints the answer. A tool that failed writes to standard error and exits with 1, one that nobody answered in
    /// time with 124.
    ///
    /// # Errors
    /// As [`Lease::bash`], with the lease.
    pub async fn bash_with(
        self,
        command: &str,
        options: CellOptions,
        tools: &CodeTools,
    ) -> Result<Progress, NoOutcome> {
        self.run_with(Code::bash(command), options, tools).await
    }

    /// Runs a cell in the container's REPL, to one outcome. Names bound in one cell are there in the next.
    ///
    /// The REPL is started by the first cell. When it ends under a cell or between two, the container lives, and the
    /// next cell gets a new one and is told so. Time up or an interrupt ends the cell as Ctrl-C does, and the REPL only
    /// when that is not enough; then everything else that runs in the container goes too.
    ///
    /// `file` is the name that tracebacks show: an absolute path of at most 256 bytes without NUL. Nothing is written
    /// there.
    ///
    /// # Errors
    /// [`SandboxError`] when there is no outcome: a source too long, a file name of another kind, an interpreter that
    /// could not be started, a dead container.
    pub async fn python(
        &mut self,
        source: &str,
        file: &str,
        options: CellOptions,
    ) -> Result<CellOutcome, SandboxError> {
        let code = Code::python(source, file)?;
        self.run(code, options).await
    }

    /// As [`Lease::python`], for code that may call tools: it is parked whenever it waits for nothing but answers. The
    /// lease goes with it, and comes back with the outcome.
    ///
    /// Each tool is an async function among the names of the REPL, and stays bound after the cell; what it can be called
    /// for is what the running cell was given.
    ///
    /// # Errors
    /// As [`Lease::python`], with the lease.
    pub async fn python_with(
        self,
        source: &str,
        file: &str,
        options: CellOptions,
        tools: &CodeTools,
    ) -> Result<Progress, NoOutcome> {
        self.run_with(Code::python(source, file), options, tools).await
    }

    async fn run_with(
        self,
        code: Result<Code, SandboxError>,
        options: CellOptions,
        tools: &CodeTools,
    ) -> Result<Progress, NoOutcome> {
        match code {
            Ok(code) => {
                let cell = self.cell(code, options);
                parked::start(self, tools, |line| Cell { line: Some(line), ..cell }).await
            }
            Err(error) => Err(NoOutcome { lease: self, error }),
        }
    }

    async fn run(&mut self, code: Code, options: CellOptions) -> Result<CellOutcome, SandboxError> {
        let cell = self.cell(code, options);
        self.ask(|reply| Request::Cell { cell, reply }).await?
    }

    fn cell(&self, code: Code, options: CellOptions) -> Cell {
        let CellOptions { wall, cancel, live } = options;
        let wall = wall.min(Duration::from_secs(self.host.config.cell_wall_s_max));
        Cell { code, wall, cancel, live, line: None }
    }

    /// Carries out a command of the text editor.
    ///
    /// # Errors
    /// The inner error is the caller's or the file's fault; the outer one is a dead container or a broken host.
    pub async fn edit(&mut self, command: EditCommand) -> Result<Result<EditOutcome, EditFailure>, SandboxError> {
        edit::run(self, command).await
    }

    /// Puts a file into `$INPUT_DIR`, mode 0644, over one of the same name.
    ///
    /// # Errors
    /// [`PutError`]; nothing of the file appears then.
    pub async fn put_input(
        &mut self,
        name: &str,
        source: impl AsyncRead + Send + Unpin,
        size: u64,
    ) -> Result<(), PutError> {
        if !names::usable(name) {
            return Err(PutError::Name(name.to_owned()));
        }
        self.write_file(&format!("{INPUT_DIRECTORY}/{name}"), source, size).await
    }

    /// Writes a file whole: parents are made, the file appears at once, an existing one's mode is kept. The path is
    /// resolved inside the container, a relative one against `/work`.
    ///
    /// # Errors
    /// [`PutError`]; nothing of the file appears then.
    pub async fn write_file(
        &mut self,
        path: &str,
        source: impl AsyncRead + Send + Unpin,
        size: u64,
    ) -> Result<(), PutError> {
        files::put(self, path, source, size).await.map(drop)
    }

    /// Opens a regular file of at most `bytes_max` bytes. The path is resolved inside the container, a relative one
    /// against `/work`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_file(&mut self, path: &str, bytes_max: u64) -> Result<FileContent, ReadError> {
        files::open(self, path, bytes_max).await
    }

    /// Everything that the container's code has written, over its image, as a layer: a tar stream in the form of an OCI
    /// image layer. The container's processes are stopped until the stream's end. `/dev/shm`, processes and their
    /// memory are no part of it.
    ///
    /// The stream is all or nothing: only one that ends without an error is a checkpoint.
    ///
    /// # Errors
    /// [`SandboxError::Io`] when no pipe can be made; whatever else fails is told by the stream.
    pub fn checkpoint(&mut self) -> Result<LayerReader, SandboxError> {
        LayerReader::begin(&self.container)
    }

    /// Puts the files of a layer into the container, over what is there. Meant for a new container of the image that the
    /// layer was made over. Dropping the future, or an error, leaves a container of which nothing is known: remove it.
    ///
    /// # Errors
    /// [`PutError`].
    pub async fn restore(&mut self, layer: impl AsyncRead + Send + Unpin) -> Result<(), PutError> {
        checkpoint::restore(self, layer).await
    }

    /// Puts this container's files into another, as [`Lease::restore`] does with a layer that [`Lease::checkpoint`] has made, but
    /// from one guest to the other: the host sees none of it. Dropping the future, or an error, leaves `other` as with
    /// [`Lease::restore`], and this container as it was.
    ///
    /// # Errors
    /// [`PutError`].
    pub async fn copy_into(&mut self, other: &mut Self) -> Result<(), PutError> {
        checkpoint::copy(self, other).await
    }

    /// Asks the keeper and waits for its answer.
    pub(crate) async fn ask<T>(
        &mut self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, SandboxError> {
        let (reply, answer) = oneshot::channel();
        self.request(request(reply)).await?;
        answer.await.map_err(|_dropped| self.dead())
    }

    /// Asks the keeper, who answers by the way that the request names.
    pub(crate) async fn request(&mut self, request: Request) -> Result<(), SandboxError> {
        self.container.requests.send(request).await.map_err(|_refused| self.dead())
    }

    pub(crate) fn dead(&self) -> SandboxError {
        let unknown = DeathReason::Channel("its keeper ended".to_owned());
        SandboxError::Dead(self.container.death().cloned().unwrap_or(unknown))
    }
}
