//! What a cell's end is called: from what the guest said and what the kernel counted.

use std::time::Duration;

use belljar_jail::cgroup::{Limits, Stats};

use crate::command::{End, said};
use crate::error::DeathReason;
use crate::frame::Status;
use crate::outcome::{CellOutcome, KillReason, Loss, Output};

/// What the judgement is made from.
pub struct Facts {
    pub wall_max: Duration,
    pub before: Stats,
    pub at_end: Stats,
    pub after: Stats,
    pub limits: Limits,
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

impl Facts {
    /// One outcome for each end.
    pub fn judge(&self, end: &End) -> Judged {
        let memory_killed = self.after.oom_kills > self.before.oom_kills;
        let memory_max = self.limits.memory_bytes_max;
        let mut losses = Vec::new();
        let (return_code, outcome): (i32, fn(Output) -> CellOutcome) = match end {
            End::Exited { status, .. } => {
                let return_code = match *status {
                    Status::Code(code) => i32::from(code),
                    Status::Signal(signal) => 128 + i32::from(signal),
                };
                if memory_killed && return_code == RETURN_CODE_KILLED {
                    losses.push(Loss::KilledByMemory(memory_max));
                    (return_code, |output| CellOutcome::Killed(KillReason::Memory, output))
                } else {
                    if memory_killed {
                        losses.push(Loss::ProcessKilledByMemory(memory_max));
                    }
                    (return_code, CellOutcome::Ended)
                }
            }
            End::TimedOut => {
                let processes_max = self.limits.processes_max;
                if self.at_end.processes >= processes_max {
                    losses.push(Loss::ProcessesRefused(processes_max));
                }
                losses.push(Loss::TimedOut(self.wall_max));
                (RETURN_CODE_KILLED, CellOutcome::TimedOut)
            }
            End::Cancelled | End::Died(DeathReason::Removed) => {
                losses.push(Loss::Interrupted);
                (RETURN_CODE_KILLED, |output| CellOutcome::Killed(KillReason::Requested, output))
            }
            End::Died(DeathReason::OutOfMemory) => {
                losses.push(Loss::KilledByMemory(memory_max));
                losses.push(Loss::ContainerDied(DeathReason::OutOfMemory.to_string()));
                (RETURN_CODE_KILLED, |output| CellOutcome::Killed(KillReason::Memory, output))
            }
            End::Died(reason) => {
                losses.push(Loss::ContainerDied(reason.to_string()));
                (RETURN_CODE_KILLED, CellOutcome::Crashed)
            }
            End::NotStarted(failure) => {
                losses.push(Loss::ContainerDied(said(*failure)));
                (RETURN_CODE_KILLED, CellOutcome::Crashed)
            }
        };
        Judged { return_code, outcome, losses }
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
