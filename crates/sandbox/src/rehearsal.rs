//! The first cell of a container that is made ahead of need is the host's, by the way that every cell goes: what it
//! copies, opens and remembers, nobody who claims the container has to wait for. It leaves no name, no file, no output.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cell::{self, Cell, Code};
use crate::error::SandboxError;
use crate::guest::Guest;
use crate::host::SharedHost;
use crate::outcome::CellOutcome;

/// Asks for libraries as first cells do; where none was imported ahead, it imports none.
const SOURCE: &str = r#"
print([__import__(name) for name in ("numpy", "pandas", "matplotlib.pyplot") if name in __import__("sys").modules])
"#;
/// What tracebacks would call it.
const FILE: &str = "<rehearsal>";
/// Of a cell that takes a millisecond.
const WALL_MAX: Duration = Duration::from_secs(30);

/// Runs it in a container with a REPL.
///
/// # Errors
/// [`SandboxError`]; the container is the caller's to clear away then.
pub async fn run(guest: &mut Guest, host: &SharedHost) -> Result<(), SandboxError> {
    let code = Code::Python { source: SOURCE.to_owned(), file: FILE.to_owned() };
    let cell = Cell { code, wall: WALL_MAX, cancel: CancellationToken::new(), live: None, line: None };
    let done = cell::run(guest, host, cell, std::future::pending()).await;
    match done.answer? {
        CellOutcome::Ended(output) if output.return_code == 0 => Ok(()),
        other => Err(SandboxError::NotStarted(format!("the interpreter's first cell came to {:?}", other.output()))),
    }
}
