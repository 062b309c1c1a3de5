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
/// With less than this left, in bytes, a disk is full: what failed for want of room has given some of it back.
const DISK_FREE_BYTES_MIN: u64 = 64 * 1024;
/// The same for files, of which the cell's own output directory was one.
const DISK_FREE_INODES_MIN: u64 = 16;

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
        let refused = self.after.pids_refused > self.before.pids_refused;
        let full = self.disk.is_some_and(|free| free.bytes < DISK_FREE_BYTES_MIN || free.inodes < DISK_FREE_INODES_MIN);
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
            InterpreterEnd::Memory
            | InterpreterEnd::Breach(_)
            | InterpreterEnd::Killed
            | InterpreterEnd::NotKept
            | InterpreterEnd::NotCopied
            | InterpreterEnd::Unknown => RETURN_CODE_KILLED,
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
    use crate::command::OutputDirectory;
    use crate::frame::Failure;

    const WALL_MAX: Duration = Duration::from_secs(90);
    const DISK_MAX: DiskFree = DiskFree { bytes: 7, inodes: 9 };
    const DISK_FULL: Loss = Loss::DiskFull { bytes_max: 7, inodes_max: 9 };
    const KILLED_BY_MEMORY: Loss = Loss::KilledByMemory(1000);

    fn facts(language: Language) -> Facts {
        let none = Stats::default();
        let limits = Limits { memory_bytes_max: 1000, cpus: 1.0, processes_max: 8 };
        let (wall_max, disk_max) = (WALL_MAX, DISK_MAX);
        Facts { language, wall_max, before: none, after: none, limits, disk: None, disk_max }
    }

    fn judged(facts: &Facts, ending: Ending, stop: Option<Stop>) -> (i32, &'static str, Vec<Loss>) {
        let Judged { return_code, outcome, losses } = facts.judge(&End { stop, ending });
        let outcome = outcome(Output { return_code, ..Output::empty() });
        let name = match outcome {
            CellOutcome::Ended(_) => "ended",
            CellOutcome::TimedOut(_) => "timed out",
            CellOutcome::Killed(KillReason::Memory, _) => "memory",
            CellOutcome::Killed(KillReason::Requested, _) => "requested",
            CellOutcome::Crashed(_) => "crashed",
        };
        assert!(name == "ended" || return_code != 0, "nothing dead is a success");
        (return_code, name, losses)
    }

    fn exited(status: Status) -> Ending {
        Ending::Exited { status, output: OutputDirectory::Removed }
    }

    #[test]
    fn every_end_of_a_command_has_its_name() {
        let died = |reason: DeathReason| Ending::Died(reason);
        let dead = |reason: DeathReason| Loss::ContainerDied(reason.to_string());
        let cases = [
            (exited(Status::Code(3)), None, 0, (3, "ended", vec![])),
            (exited(Status::Signal(9)), None, 0, (137, "ended", vec![])),
            (exited(Status::Signal(9)), None, 1, (137, "memory", vec![KILLED_BY_MEMORY])),
            (exited(Status::Code(137)), None, 1, (137, "memory", vec![KILLED_BY_MEMORY])),
            (exited(Status::Code(0)), None, 1, (0, "ended", vec![Loss::ProcessKilledByMemory(1000)])),
            (Ending::Overdue, Some(Stop::Time), 0, (137, "timed out", vec![Loss::TimedOut(WALL_MAX)])),
            (Ending::Overdue, Some(Stop::Request), 0, (137, "requested", vec![Loss::Interrupted])),
            (exited(Status::Signal(2)), Some(Stop::Request), 0, (130, "requested", vec![Loss::Interrupted])),
            (exited(Status::Code(0)), Some(Stop::Request), 0, (137, "requested", vec![Loss::Interrupted])),
            (died(DeathReason::Removed), None, 0, (137, "requested", vec![Loss::Interrupted])),
            (died(DeathReason::SupervisorEnded), None, 0, (137, "crashed", vec![dead(DeathReason::SupervisorEnded)])),
            (
                died(DeathReason::OutOfMemory),
                Some(Stop::Time),
                1,
                (137, "memory", vec![KILLED_BY_MEMORY, dead(DeathReason::OutOfMemory)]),
            ),
            (
                Ending::NotStarted(Failure::Busy),
                None,
                0,
                (137, "crashed", vec![Loss::ContainerDied(said(Failure::Busy))]),
            ),
        ];
        for (ending, stop, oom_kills, expected) in cases {
            let mut facts = facts(Language::Bash);
            facts.after.oom_kills = oom_kills;
            let shown = format!("{ending:?} {stop:?}");
            assert_eq!(judged(&facts, ending, stop), expected, "{shown}");
        }
    }

    #[test]
    fn every_end_of_an_interpreter_has_its_name() {
        let ended = Loss::InterpreterEnded;
        let interpreter = Ending::Interpreter;
        let (code, signal) = (InterpreterEnd::Exited, InterpreterEnd::Signal);
        let timed_out = Loss::DetectionTimeout(WALL_MAX);
        let cases = [
            (interpreter(code(0)), None, 0, (1, "crashed", vec![ended(code(0))])),
            (interpreter(code(3)), None, 0, (3, "crashed", vec![ended(code(3))])),
            (interpreter(signal(11)), None, 0, (139, "crashed", vec![ended(signal(11))])),
            (interpreter(signal(9)), None, 0, (137, "crashed", vec![ended(signal(9))])),
            (interpreter(signal(9)), None, 1, (137, "memory", vec![KILLED_BY_MEMORY, ended(InterpreterEnd::Memory)])),
            (
                interpreter(signal(11)),
                None,
                1,
                (139, "crashed", vec![Loss::ProcessKilledByMemory(1000), ended(signal(11))]),
            ),
            (
                interpreter(InterpreterEnd::Breach("x")),
                None,
                0,
                (137, "crashed", vec![ended(InterpreterEnd::Breach("x"))]),
            ),
            (exited(Status::Code(130)), Some(Stop::Time), 0, (130, "timed out", vec![timed_out.clone()])),
            (exited(Status::Code(0)), Some(Stop::Time), 0, (137, "timed out", vec![timed_out.clone()])),
            (Ending::Overdue, Some(Stop::Time), 0, (137, "timed out", vec![timed_out, ended(InterpreterEnd::Killed)])),
            (interpreter(code(0)), Some(Stop::Request), 0, (137, "requested", vec![Loss::Interrupted, ended(code(0))])),
        ];
        for (ending, stop, oom_kills, expected) in cases {
            let mut facts = facts(Language::Python);
            facts.after.oom_kills = oom_kills;
            let shown = format!("{ending:?} {stop:?}");
            assert_eq!(judged(&facts, ending, stop), expected, "{shown}");
        }
    }

    #[test]
    fn a_limit_is_named_where_the_cell_failed_and_only_there() {
        let free = |bytes, inodes| Some(DiskFree { bytes, inodes });
        let refused = Loss::ProcessesRefused(8);
        let cases = [
            (1, 7, free(1 << 20, 500), vec![]),
            (1, 8, free(1 << 20, 500), vec![refused.clone()]),
            (1, 7, free(0, 500), vec![DISK_FULL]),
            (1, 7, free(8192, 500), vec![DISK_FULL]),
            (1, 7, free(1 << 20, 2), vec![DISK_FULL]),
            (1, 8, free(0, 0), vec![refused, DISK_FULL]),
            (0, 8, None, vec![]),
        ];
        for (code, refused, disk, losses) in cases {
            let mut facts = Facts { disk, ..facts(Language::Bash) };
            (facts.before.pids_refused, facts.after.pids_refused) = (7, refused);
            let expected = (i32::from(code), "ended", losses);
            assert_eq!(judged(&facts, exited(Status::Code(code)), None), expected, "{refused} {disk:?}");
        }
    }
}
