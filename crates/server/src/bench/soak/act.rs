//! What a user of the soak does, each act with the answer it must get.

use std::time::Duration;

use belljar_sandbox::{CellOptions, CellOutcome, KillReason, Lease, Loss, Output};
use tokio::sync::mpsc;

use super::dice::Dice;
use crate::bench::{Failure, ours};
use crate::cell::Language;
use crate::cell::Language::{Bash, Python};

/// One thing that users do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Gives the container up for a new one.
    Renew,
    /// A shell command with a known answer.
    Echo,
    /// A Python cell with a known answer.
    Sum,
    /// A name set in one cell and read in the next.
    Remember,
    /// A file put in, read by a command.
    PutFile,
    /// A file written by a cell and captured.
    CaptureFile,
    /// A command that runs out of time.
    BashTimeout,
    /// A cell that runs out of time.
    PythonTimeout,
    /// A cell that is killed once it has said something.
    Kill,
    /// A cell whose caller goes away once it has said something.
    Abandon,
    /// A cell that crashes its interpreter.
    Fault,
    /// More output than is kept.
    Flood,
    /// Processes that are left running.
    Orphans,
}

/// How often each is done.
pub const ACTS: &[(u64, Act)] = &[
    (20, Act::Renew),
    (20, Act::Echo),
    (20, Act::Sum),
    (10, Act::Remember),
    (6, Act::PutFile),
    (6, Act::CaptureFile),
    (2, Act::BashTimeout),
    (2, Act::PythonTimeout),
    (4, Act::Kill),
    (4, Act::Abandon),
    (3, Act::Fault),
    (3, Act::Flood),
    (4, Act::Orphans),
];

const SHORT_WALL: Duration = Duration::from_millis(200);
/// Says something, then never ends.
const BASH_FOREVER: &str = "echo started; sleep 1000";
const PYTHON_FOREVER: &str = "print('started', flush=True)\nwhile True: pass\n";

impl Act {
    /// Does it; an error says what was wrong with the answer. [`Act::Renew`] is its caller's.
    pub async fn perform(self, lease: &mut Lease, dice: &mut Dice) -> Result<(), Failure> {
        let number = dice.below(1_000_000);
        match self {
            Self::Renew => Ok(()),
            Self::Echo => says(lease, Bash, &format!("echo $(({number} * 3))"), &format!("{}\n", number * 3)).await,
            Self::Sum => says(lease, Python, &format!("print({number} + 7)"), &format!("{}\n", number + 7)).await,
            Self::Remember => {
                says(lease, Python, &format!("kept = {number}"), "").await?;
                says(lease, Python, "print(kept)", &format!("{number}\n")).await
            }
            Self::PutFile => put_file(lease, dice, number).await,
            Self::CaptureFile => capture_file(lease, number).await,
            Self::BashTimeout => times_out(lease, Bash, BASH_FOREVER).await,
            Self::PythonTimeout => times_out(lease, Python, PYTHON_FOREVER).await,
            Self::Kill => match number % 2 {
                0 => is_killed(lease, Bash, BASH_FOREVER).await,
                _ => is_killed(lease, Python, PYTHON_FOREVER).await,
            },
            Self::Abandon => match number % 2 {
                0 => is_abandoned(lease, Bash, BASH_FOREVER).await,
                _ => is_abandoned(lease, Python, PYTHON_FOREVER).await,
            },
            Self::Fault => fault(lease, number).await,
            Self::Flood => flood(lease).await,
            Self::Orphans => {
                let command = "for i in 1 2 3; do (setsid sleep 1000 >/dev/null 2>&1 &); done; echo left";
                says(lease, Bash, command, "left\n").await
            }
        }
    }
}

async fn ended(lease: &mut Lease, language: Language, source: &str) -> Result<Output, Failure> {
    match ours::cell(lease, language, source, ours::options()).await? {
        CellOutcome::Ended(output) => Ok(output),
        other => Err(format!("{source:?} came out as {other:?}").into()),
    }
}

async fn says(lease: &mut Lease, language: Language, source: &str, expected: &str) -> Result<(), Failure> {
    let output = ended(lease, language, source).await?;
    // What earlier acts did to the container may be told here.
    let told = |loss: &Loss| matches!(loss, Loss::InterpreterRestarted(_) | Loss::LeftoversKilled(_));
    let whole = output.losses.iter().all(told);
    match output.return_code == 0 && output.stdout == expected.as_bytes() && whole {
        true => Ok(()),
        false => Err(format!("{source:?}, which should say {expected:?}, came out as {output:?}").into()),
    }
}

async fn put_file(lease: &mut Lease, dice: &mut Dice, number: u64) -> Result<(), Failure> {
    let size = usize::try_from(dice.below(200_000))?;
    let content = vec![b'x'; size];
    let name = format!("{number}.txt");
    lease.put_input(&name, content.as_slice(), size as u64).await?;
    let command =
        format!("tr -d x <\"$INPUT_DIR/{name}\" | wc -c; wc -c <\"$INPUT_DIR/{name}\"; rm \"$INPUT_DIR/{name}\"");
    says(lease, Bash, &command, &format!("0\n{size}\n")).await
}

async fn capture_file(lease: &mut Lease, number: u64) -> Result<(), Failure> {
    let source = format!("import os\nopen(os.environ['OUTPUT_DIR'] + '/out.txt', 'w').write('{number}' * 100)\n");
    let output = ended(lease, Python, &source).await?;
    let expected = number.to_string().repeat(100);
    let content = match output.files.as_slice() {
        [one] if one.name == "out.txt" => {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut &one.file, &mut text)?;
            text
        }
        _ => return Err(format!("no file was captured: {output:?}").into()),
    };
    match content == expected {
        true => Ok(()),
        false => Err("a captured file has other content than was written".into()),
    }
}

async fn times_out(lease: &mut Lease, language: Language, source: &str) -> Result<(), Failure> {
    let options = CellOptions { wall: SHORT_WALL, ..ours::options() };
    match ours::cell(lease, language, source, options).await? {
        CellOutcome::TimedOut(_) => Ok(()),
        other => Err(format!("{source:?} should run out of time and came out as {other:?}").into()),
    }
}

async fn is_killed(lease: &mut Lease, language: Language, source: &str) -> Result<(), Failure> {
    let (live, mut chunks) = mpsc::channel(4);
    let options = CellOptions { live: Some(live), ..ours::options() };
    let cancel = options.cancel.clone();
    let cell = ours::cell(lease, language, source, options);
    let killer = async {
        let heard = chunks.recv().await;
        cancel.cancel();
        heard.is_some()
    };
    match tokio::join!(cell, killer) {
        (Ok(CellOutcome::Killed(KillReason::Requested, _)), true) => Ok(()),
        (outcome, heard) => Err(format!("{source:?}, killed, came out as {outcome:?}; heard of it: {heard}").into()),
    }
}

async fn is_abandoned(lease: &mut Lease, language: Language, source: &str) -> Result<(), Failure> {
    let (live, mut chunks) = mpsc::channel(4);
    let options = CellOptions { live: Some(live), ..ours::options() };
    tokio::select! {
        outcome = ours::cell(lease, language, source, options) => {
            Err(format!("{source:?} never ends, and came out as {outcome:?}").into())
        }
        Some(_) = chunks.recv() => Ok(()),
    }
}

/// The interpreter dies; the next one finds the files, and not the names.
async fn fault(lease: &mut Lease, number: u64) -> Result<(), Failure> {
    says(lease, Python, &format!("gone = 1\nopen('/work/kept', 'w').write('{number}')\n"), "").await?;
    let crash = "import ctypes\nctypes.string_at(0)\n";
    let outcome = ours::cell(lease, Python, crash, ours::options()).await?;
    if matches!(&outcome, CellOutcome::Ended(output) if output.return_code == 0) {
        return Err(format!("a segmentation fault came out as {outcome:?}").into());
    }
    let source = "print(open('/work/kept').read(), 'gone' in globals())";
    says(lease, Python, source, &format!("{number} False\n")).await
}

async fn flood(lease: &mut Lease) -> Result<(), Failure> {
    const BYTES: u64 = 3_000_000;
    let output = ended(lease, Bash, &format!("head -c {BYTES} /dev/zero")).await?;
    match output.stdout_bytes == BYTES && (output.stdout.len() as u64) < BYTES {
        true => Ok(()),
        false => Err(format!("{} bytes counted, {} kept, of {BYTES}", output.stdout_bytes, output.stdout.len()).into()),
    }
}
