//! A server that restarts in place: its process becomes the program that stands on disk now, with the configuration that
//! stands there now, and its live containers go on (docs/adr/2026-11-29-a-server-restarts-in-place.md).

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use belljar_sandbox::handover::{self, become_program};
use belljar_sandbox::{Sandbox, SandboxConfig};

use crate::config::Config;
use crate::exit::Exit;
use crate::handover::{Estate, VARIABLE};
use crate::organs;

/// For the next program to read its configuration and to start a container, on a machine that does much else.
const CHECK_WAIT_MAX: Duration = Duration::from_secs(30);
/// Has a server check what it would begin with, and not begin.
pub const CHECK: &str = "--check";

/// How this process was started.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// What must be the same for live containers to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// Form of a handover, with the protocols that those inside speak.
    pub form: String,
    /// Digest of the image that containers are made from.
    pub image: String,
}

impl Ground {
    /// What this program would begin with, once it has started a container on it.
    ///
    /// # Errors
    /// No image of the configured name, or no container of it that starts.
    pub async fn proved(config: &Config) -> Result<Self, Exit> {
        let image = organs::mount(config).await?;
        let sandbox = SandboxConfig { pool_containers: 0, zygotes: Vec::new(), ..config.sandbox.clone() };
        Sandbox::open(sandbox, organs::rootfs(&image)).await.map_err(organs::sandbox_exit)?.close().await;
        Ok(Self { form: handover::form(), image: image.digest().to_string() })
    }

    /// As [`Ground::read`] reads it.
    pub fn written(&self) -> String {
        format!("handover {}\nimage {}\n", self.form, self.image)
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let form = lines.next()?.strip_prefix("handover ")?.to_owned();
        let image = lines.next()?.strip_prefix("image ")?.to_owned();
        Some(Self { form, image })
    }
}

impl Program {
    /// To be asked at the start: later, the file that this process runs may have no name any more.
    ///
    /// # Errors
    /// What `/proc` answers.
    pub fn of_this_process() -> io::Result<Self> {
        let path = std::env::current_exe()?;
        Ok(Self { path, arguments: std::env::args_os().skip(1).collect() })
    }

    /// Has the program that stands there now say what it would begin with; the error is why it would not begin.
    pub async fn tried(&self) -> Result<Ground, String> {
        let trying = tokio::process::Command::new(&self.path)
            .args(&self.arguments)
            .arg(CHECK)
            .env_remove(VARIABLE)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let tried = tokio::time::timeout(CHECK_WAIT_MAX, trying).await;
        let output = tried.map_err(|_elapsed| format!("no answer from {} {CHECK}", self.path.display()))?;
        let output = output.map_err(|error| format!("{}: {error}", self.path.display()))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned());
        }
        let ground = Ground::read(&String::from_utf8_lossy(&output.stdout));
        ground.ok_or_else(|| format!("{} does not know how to restart in place", self.path.display()))
    }

    /// Becomes that program. What comes back is why it could not, and then this process has nothing left to do but to end.
    #[must_use]
    pub fn become_next(&self, estate: &Estate) -> Exit {
        let failed = |error: io::Error| Exit::failed(format!("restart: {}: {error}", self.path.display()));
        let (_memory, handed) = match estate.write() {
            Ok(written) => written,
            Err(error) => return failed(error),
        };
        let mut next = std::process::Command::new(&self.path);
        next.args(&self.arguments).env(VARIABLE, handed.number().to_string());
        failed(become_program(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ground_is_read_as_it_is_written() {
        let ground = Ground { form: "1.2.3.4".to_owned(), image: "sha256:ab".to_owned() };
        assert_eq!(Ground::read(&ground.written()), Some(ground));
        assert_eq!(Ground::read("belljar 0.1.0\n"), None);
        assert_eq!(Ground::read(""), None);
    }
}
