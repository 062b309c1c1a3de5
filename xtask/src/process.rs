//! Runs a program, shows its output as it comes and keeps it for counting.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// How a program ended, and all it printed on both streams.
pub struct Ended {
    /// Exit status 0.
    pub success: bool,
    /// The exit status; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output and standard error, in the order in which lines arrived.
    pub output: String,
}

/// Runs `command` to its end. `Err` means that it could not be started, with the reason in words.
pub fn run(command: &mut Command) -> Result<Ended, String> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {shown}: {error}"))?;
    let kept = Arc::new(Mutex::new(String::new()));
    let readers: Vec<_> =
        [child.stdout.take().map(|pipe| copy(pipe, &kept)), child.stderr.take().map(|pipe| copy(pipe, &kept))]
            .into_iter()
            .flatten()
            .collect();
    for reader in readers {
        reader.join().map_err(|_| format!("reading the output of {shown} failed"))?;
    }
    let status = child.wait().map_err(|error| format!("waiting for {shown} failed: {error}"))?;
    let output = kept.lock().map_or_else(|poisoned| poisoned.into_inner().clone(), |text| text.clone());
    Ok(Ended { success: status.success(), code: status.code(), output })
}

fn copy(pipe: impl Read + Send + 'static, kept: &Arc<Mutex<String>>) -> std::thread::JoinHandle<()> {
    let kept = Arc::clone(kept);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            // A closed terminal must not stop the stage; the totals still decide.
            let _shown = std::io::stdout().write_all(text.as_bytes());
            if let Ok(mut kept) = kept.lock() {
                kept.push_str(&text);
            }
            line.clear();
        }
    })
}
