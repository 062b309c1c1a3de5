//! What a cell's end is called: from what the guest said and what the kernel counted.

use std::time::Duration;

use belljar_jail::cgroup::{Limits, Stats};

use crate::command::{DiskFree, End, Ending, Stop, said};
use crate::error::DeathReason;
use crate::frame::Status;
use crate::outcome::{CellOutcome, InterpreterEnd, KillReason, Loss, Output};

/// What the judgement is made from.
pub struct Facts {
    pub language: Language,
    pub wall_max: Duration,
    pub before: Stats,
    pub at_end: Stats,
    pub after: Stats,
    pub limits: Limits,
    /// Asked for only where the cell failed.
    pub disk: Option<DiskFree>,
    pub disk_max: DiskFree,
}

/// What a cell is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Bash,
    Python,
}

/// What it was.
pub struct Judged {
    pub return_code: i32,
    pub outcome: fn(Output) -> CellOutcome,
    pub losses: Vec<Loss>,
}

const SIGKILL: u8 = 9;
/// As a shell reports a command that SIGKILL ended.
const RETURN_CODE_KILLED: i32 = 128 + SIGKILL as i32;
/// Of an interpreter that ended with 0 though nobody had asked it to.
const RETURN_CODE_CRASHED: i32 = 1;
/// With less than this left, in bytes, a disk is full: few files are smaller.
const DISK_FREE_BYTES_MIN: u64 = 4096;

/// The exit status as a shell reports it.
pub fn return_code(status: Status) -> i32 {
    match status {
        Status::Code(code) => i32::from(code),
        Status::Signal(signal) => 128 + i32::from(signal),
    }
}

impl Facts {
    /// One outcome for each end.
    pub fn judge(&self, end: &End) -> Judged {
        let mut judged = match (&end.ending, end.stop) {
            (Ending::Died(reason), _) => self.died(reason),
            (Ending::NotStarted(failure), _) => Judged {
                return_code: RETURN_CODE_KILLED,
                outcome: CellOutcome::Crashed,
                losses: vec![Loss::ContainerDied(said(*failure))],
            },
            (ending, Some(stop)) => self.stopped(ending, stop),
            (Ending::Interpreter(how), None) => self.interpreter_ended(*how),
            (Ending::Exited { status, .. }, None) => self.exited(*status),
            (Ending::Overdue, None) => self.exited(Status::Signal(SIGKILL)),
        };
        if judged.return_code != 0 {
            let limits = self.limits_met();
            judged.losses.splice(0..0, limits);
        }
        judged
    }

    fn memory_killed(&self) -> bool {
        self.after.oom_kills > self.before.oom_kills
    }

    /// Limits that a failed cell met, whatever it died of.
    fn limits_met(&self) -> impl Iterator<Item = Loss> + use<> {
        let processes_max = self.limits.processes_max;
        let refused = self.at_end.processes >= processes_max;
        let full = self.disk.is_some_and(|free| free.bytes < DISK_FREE_BYTES_MIN || free.inodes == 0);
        let DiskFree { bytes: bytes_max, inodes: inodes_max } = self.disk_max;
        let processes = refused.then_some(Loss::ProcessesRefused(processes_max));
        processes.into_iter().chain(full.then_some(Loss::DiskFull { bytes_max, inodes_max }))
    }

    fn died(&self, reason: &DeathReason) -> Judged {
        let (outcome, losses): (fn(Output) -> CellOutcome, _) = match reason {
            DeathReason::Removed => {
                (|output| CellOutcome::Killed(KillReason::Requested, output), vec![Loss::Interrupted])
            }
            DeathReason::OutOfMemory => (
                |output| CellOutcome::Killed(KillReason::Memory, output),
                vec![Loss::KilledByMemory(self.limits.memory_bytes_max), Loss::ContainerDied(reason.to_string())],
            ),
            reason => (CellOutcome::Crashed, vec![Loss::ContainerDied(reason.to_string())]),
        };
        Judged { return_code: RETURN_CODE_KILLED, outcome, losses }
    }

    /// What the host has stopped is never a success, even if the code took the interrupt for one.
    fn stopped(&self, ending: &Ending, stop: Stop) -> Judged {
        let code = match ending {
            Ending::Exited { status, .. } => Some(return_code(*status)).filter(|code| *code != 0),
            _ => None,
        };
        let (outcome, loss): (fn(Output) -> CellOutcome, _) = match (stop, self.language) {
            (Stop::Time, Language::Bash) => (CellOutcome::TimedOut, Loss::TimedOut(self.wall_max)),
            (Stop::Time, Language::Python) => (CellOutcome::TimedOut, Loss::DetectionTimeout(self.wall_max)),
            (Stop::Request, _) => (|output| CellOutcome::Killed(KillReason::Requested, output), Loss::Interrupted),
        };
        let mut losses = vec![loss];
        match (ending, self.language) {
            (Ending::Interpreter(how), _) => losses.push(Loss::InterpreterEnded(*how)),
            (Ending::Overdue, Language::Python) => losses.push(Loss::InterpreterEnded(InterpreterEnd::Killed)),
            _ => {}
        }
        Judged { return_code: code.unwrap_or(RETURN_CODE_KILLED), outcome, losses }
    }

    fn interpreter_ended(&self, how: InterpreterEnd) -> Judged {
        let memory_max = self.limits.memory_bytes_max;
        if self.memory_killed() && how == InterpreterEnd::Signal(SIGKILL) {
            return Judged {
                return_code: RETURN_CODE_KILLED,
                outcome: |output| CellOutcome::Killed(KillReason::Memory, output),
                losses: vec![Loss::KilledByMemory(memory_max), Loss::InterpreterEnded(InterpreterEnd::Memory)],
            };
        }
        let return_code = match how {
            InterpreterEnd::Exited(0) => RETURN_CODE_CRASHED,
            InterpreterEnd::Exited(code) => i32::from(code),
            InterpreterEnd::Signal(signal) => 128 + i32::from(signal),
            InterpreterEnd::Memory | InterpreterEnd::Breach(_) | InterpreterEnd::Killed | InterpreterEnd::Unknown => {
                RETURN_CODE_KILLED
            }
        };
        let memory = self.memory_killed().then_some(Loss::ProcessKilledByMemory(memory_max));
        let losses = memory.into_iter().chain([Loss::InterpreterEnded(how)]).collect();
        Judged { return_code, outcome: CellOutcome::Crashed, losses }
    }

    fn exited(&self, status: Status) -> Judged {
        let memory_max = self.limits.memory_bytes_max;
        let return_code = return_code(status);
        match (self.memory_killed(), return_code) {
            (true, RETURN_CODE_KILLED) => Judged {
                return_code,
                outcome: |output| CellOutcome::Killed(KillReason::Memory, output),
                losses: vec![Loss::KilledByMemory(memory_max)],
            },
            (true, _) => Judged {
                return_code,
                outcome: CellOutcome::Ended,
                losses: vec![Loss::ProcessKilledByMemory(memory_max)],
            },
            (false, _) => Judged { return_code, outcome: CellOutcome::Ended, losses: Vec::new() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Failure;

    fn judged(end: &End, oom_kills: u64, processes: u64) -> (i32, &'static str, Vec<Loss>) {
        let none = Stats::default();
        let limits = Limits { memory_bytes_max: 1000, cpus: 1.0, processes_max: 8 };
        let wall_max = Duration::from_secs(90);
        let (at_end, after) = (Stats { processes, ..none }, Stats { oom_kills, ..none });
        let Judged { return_code, outcome, losses } =
            Facts { wall_max, before: none, at_end, after, limits }.judge(end);
        let name = match outcome(Output::empty()) {
            CellOutcome::Ended(_) => "ended",
            CellOutcome::TimedOut(_) => "timed out",
            CellOutcome::Killed(KillReason::Memory, _) => "memory",
            CellOutcome::Killed(KillReason::Requested, _) => "requested",
            CellOutcome::Crashed(_) => "crashed",
        };
        (return_code, name, losses)
    }

    #[test]
    fn every_end_has_its_name() {
        let exited = |status| End::Exited { status, directory: None };
        let died = |reason: DeathReason| End::Died(reason);
        let dead = |reason: DeathReason| Loss::ContainerDied(reason.to_string());
        let timed_out = Loss::TimedOut(Duration::from_secs(90));
        let cases = [
            (exited(Status::Code(3)), 0, 1, (3, "ended", vec![])),
            (exited(Status::Signal(9)), 0, 1, (137, "ended", vec![])),
            (exited(Status::Signal(9)), 1, 1, (137, "memory", vec![Loss::KilledByMemory(1000)])),
            (exited(Status::Code(137)), 1, 1, (137, "memory", vec![Loss::KilledByMemory(1000)])),
            (exited(Status::Code(0)), 1, 1, (0, "ended", vec![Loss::ProcessKilledByMemory(1000)])),
            (End::TimedOut, 0, 7, (137, "timed out", vec![timed_out.clone()])),
            (End::TimedOut, 0, 8, (137, "timed out", vec![Loss::ProcessesRefused(8), timed_out])),
            (End::Cancelled, 0, 1, (137, "requested", vec![Loss::Interrupted])),
            (died(DeathReason::Removed), 0, 1, (137, "requested", vec![Loss::Interrupted])),
            (died(DeathReason::SupervisorEnded), 0, 1, (137, "crashed", vec![dead(DeathReason::SupervisorEnded)])),
            (
                died(DeathReason::OutOfMemory),
                1,
                1,
                (137, "memory", vec![Loss::KilledByMemory(1000), dead(DeathReason::OutOfMemory)]),
            ),
            (End::NotStarted(Failure::Busy), 0, 1, (137, "crashed", vec![Loss::ContainerDied(said(Failure::Busy))])),
        ];
        for (end, oom_kills, processes, expected) in cases {
            assert_eq!(judged(&end, oom_kills, processes), expected, "{end:?}");
        }
    }
}
