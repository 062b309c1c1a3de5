//! An exclusive hold on a container.

/// What a cell may take, and who listens.
#[derive(Debug, Clone)]
pub struct CellOptions {
    /// Wall time; cut to `cell_wall_s_max`.
    pub wall: Duration,
    /// Ends the cell by force.
    pub cancel: CancellationToken,
    /// Gets the kept bytes as they come. A slow listener slows the writer; a closed channel is no error.
    pub live: Option<mpsc::Sender<LiveChunk>>,
}

impl Lease {
    pub fn container(&self) -> &ContainerId;
    pub async fn bash(&mut self, command: &str, options: CellOptions) -> Result<CellOutcome, SandboxError>;
    pub async fn edit(&mut self, command: EditCommand) -> Result<Result<EditOutcome, EditFailure>, SandboxError>;
    pub async fn put_input(&mut self, name: &str, source: impl AsyncRead + Send + Unpin, size: u64) -> Result<(), PutError>;
    pub async fn write_file(&mut self, path: &str, source: impl AsyncRead + Send + Unpin, size: u64) -> Result<(), PutError>;
    pub async fn read_file(&mut self, path: &str, bytes_max: u64) -> Result<FileContent, ReadError>;
}
