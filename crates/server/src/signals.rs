//! What is asked of a running server from outside, by signals.

use std::fs::File;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Exit;

/// The terminal that this process belongs to; it cannot be opened where there is none (`tty(4)`).
const TERMINAL: &str = "/dev/tty";

/// What the server is asked for from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGINT or SIGTERM, and SIGHUP from a terminal.
    Stop,
    /// SIGHUP where there is no terminal.
    Restart,
}

/// The signals that the server listens to.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// With what it means; none where whoever started this wants it passed over (`nohup`).
    hangup: Option<(Signal, Wish)>,
}

impl Signals {
    /// From here on. Must be called in a runtime.
    pub fn watch() -> Result<Self, Exit> {
        let watch = |kind| signal(kind).map_err(|error| Exit::cannot(format!("signals cannot be watched: {error}")));
        Ok(Self {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            hangup: on_hangup().map(|wish| Ok::<_, Exit>((watch(SignalKind::hangup())?, wish))).transpose()?,
        })
    }

    /// Waits for the next. Cancel-safe.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.terminate.recv() => Wish::Stop,
            wish = hung_up(&mut self.hangup) => wish,
        }
    }

    /// Waits for one that wants the end. Cancel-safe.
    pub async fn stop(&mut self) {
        while self.next().await != Wish::Stop {}
    }
}

async fn hung_up(hangup: &mut Option<(Signal, Wish)>) -> Wish {
    match hangup {
        None => std::future::pending().await,
        Some((signal, wish)) => {
            signal.recv().await;
            *wish
        }
    }
}

/// What a hangup means: where there is a terminal, that it was closed.
fn on_hangup() -> Option<Wish> {
    match File::open(TERMINAL) {
        Err(_none) => Some(Wish::Restart),
        Ok(_) if ignores_hangup(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()) => None,
        Ok(_) => Some(Wish::Stop),
    }
}

/// Whether a process of this status (proc_pid_status(5)) passes SIGHUP over, the first in the mask.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_is_passed_over_by_whoever_was_started_so() {
        let status = |mask: &str| {
            format!("Name:\tbelljar\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\nSigCgt:\t0000000000000001\n")
        };
        let cases = [("0000000000000001", true), ("0000000000001001", true), ("0000000000001000", false), ("x", false)];
        for (mask, ignored) in cases {
            assert_eq!(ignores_hangup(&status(mask)), ignored, "{mask}");
        }
        assert!(!ignores_hangup(""));
    }
}
