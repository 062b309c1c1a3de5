//! The suite: each row's name, what it measures, who takes part, and what is promised. SPECIFICATION.md has the promises in
//! prose.

use super::figure::Quantile::{P50, P99};
use super::figure::{Bound, Figure, Measure, Promise, Quantile};
use super::peer::Peer;
use super::race::{Does, Entrant};
use super::task::Task;

/// One row of the suite.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// For `--only`.
    pub name: &'static str,
    /// What is measured.
    pub what: &'static str,
    /// How.
    pub how: How,
    /// Bounds on it.
    pub promises: &'static [Promise],
}

/// How a row is measured.
#[derive(Debug, Clone, Copy)]
pub enum How {
    /// By turns.
    Race(Turns, &'static [Entrant]),
    /// A thousand idle containers.
    Crowd,
    /// Fifty at once.
    Burst,
    /// The kill of a fork bomb.
    Bomb,
    /// One call of a tool from code.
    ToolCall,
    /// A thousand such calls at once.
    ToolCallsAtOnce,
    /// Two thousand containers whose code waits for a tool.
    Parked,
    /// Code that is kept, against code that is run again for each answer.
    Replay,
    /// Mixed load for a while; not part of a plain run.
    Soak,
}

/// How contestants take turns.
#[derive(Debug, Clone, Copy)]
pub struct Turns {
    /// How often each gets its turn.
    pub rounds: usize,
    /// How often it does its task in one turn: what is called warm is measured warm, for all alike.
    pub each: usize,
}

/// All rows, in the order in which they run.
pub const ROWS: &[Row] = &[
    Row {
        name: "on-demand",
        what: "new container to Python output, numpy, pandas and pyplot ready",
        how: How::Race(
            once(30),
            &[
                ours(Does::Start(Task::Libraries)),
                peer(Peer::Bwrap, Task::Libraries),
                peer(Peer::Runc, Task::Libraries),
                peer(Peer::Runsc, Task::Libraries),
                peer(Peer::Chroot, Task::Libraries),
            ],
        ),
        promises: &[faster(100.0, "bwrap", "at least 100 times faster than bubblewrap + python + imports")],
    },
    Row {
        name: "claim",
        what: "container from the pool to the same output",
        how: How::Race(once(30), &[ours(Does::Claim(Task::Libraries)), peer(Peer::Bwrap, Task::Libraries)]),
        promises: &[faster(1000.0, "bwrap", "at least 1000 times faster than bubblewrap + python + imports")],
    },
    Row {
        name: "bash-start",
        what: "new container to the output of `echo hi`, bash only",
        how: How::Race(
            once(200),
            &[
                ours(Does::Start(Task::Echo)),
                peer(Peer::Bwrap, Task::EchoAlone),
                Entrant { name: "bwrap bash", does: Does::Peer(Peer::Bwrap, Task::Echo) },
                peer(Peer::Runc, Task::EchoAlone),
                peer(Peer::Runsc, Task::EchoAlone),
            ],
        ),
        promises: &[faster(1.0, "bwrap", "faster than `bwrap ... /bin/echo hi`")],
    },
    Row {
        name: "python-cell",
        what: "`print(2 + 2)` in a warm REPL",
        how: How::Race(
            Turns { rounds: 20, each: 25 },
            &[ours(Does::Cell(Task::Number)), peer(Peer::Jupyter, Task::Number), peer(Peer::Interpreter, Task::Number)],
        ),
        promises: &[
            faster(100.0, "jupyter", "at least 100 times faster than a Jupyter kernel, in the median"),
            Promise {
                says: "at least 100 times faster than a Jupyter kernel, at p99",
                of: ratio(Figure { series: "jupyter", at: P99 }, Figure { series: OURS, at: P99 }),
                bound: Bound::AtLeast(100.0),
            },
        ],
    },
    Row {
        name: "bash-cell",
        what: "`echo hi` in a container that is there",
        how: How::Race(Turns { rounds: 20, each: 25 }, &[ours(Does::Cell(Task::Echo)), peer(Peer::Bare, Task::Echo)]),
        promises: &[Promise {
            says: "at most 1.3 times a bare `bash -c`",
            of: ratio(median(OURS), median("bare")),
            bound: Bound::AtMost(1.3),
        }],
    },
    Row {
        name: "crowd",
        what: "1000 idle containers that have run a Python cell",
        how: How::Crowd,
        promises: &[
            Promise {
                says: "at most 3 MiB each, all told",
                of: Measure::Plain(median("all told")),
                bound: Bound::AtMost(3.0),
            },
            Promise {
                says: "a start among 1000 takes at most 1.5 times a start alone",
                of: ratio(median("start at 1000"), median("start at 1")),
                bound: Bound::AtMost(1.5),
            },
        ],
    },
    Row {
        name: "burst",
        what: "50 containers at once to Python output, none kept ready",
        how: How::Burst,
        promises: &[Promise {
            says: "the last is ready within 40 times one start",
            of: ratio(median("last of 50"), median("one start")),
            bound: Bound::AtMost(40.0),
        }],
    },
    Row {
        name: "fork-bomb",
        what: "kill of 256 processes that fork, to the last one gone",
        how: How::Bomb,
        promises: &[
            Promise {
                says: "a shell's bomb is gone within 20 ms",
                of: Measure::Plain(median("container killed, a shell's")),
                bound: Bound::AtMost(20_000.0),
            },
            Promise {
                says: "one of Python's, too",
                of: Measure::Plain(median("container killed")),
                bound: Bound::AtMost(20_000.0),
            },
        ],
    },
    Row {
        name: "tool-call",
        what: "one call of a tool from code, to the client and back, over HTTP",
        how: How::ToolCall,
        promises: &[
            Promise {
                says: "there and back in less than half of a bare interpreter's start, in the median",
                of: ratio(median("python3 on the host"), median("one call")),
                bound: Bound::AtLeast(2.0),
            },
            Promise {
                says: "the same of streamed replies",
                of: ratio(median("python3 on the host"), median("one call, streamed")),
                bound: Bound::AtLeast(2.0),
            },
        ],
    },
    Row {
        name: "tool-calls-at-once",
        what: "1000 calls that one cell makes at once, over HTTP",
        how: How::ToolCallsAtOnce,
        promises: &[Promise {
            says: "a thousand at once take at most as long as 200 one after the other",
            of: ratio(median("1000 calls"), median("1 call")),
            bound: Bound::AtMost(200.0),
        }],
    },
    Row {
        name: "parked",
        what: "2000 containers, or as many as there can be, whose Python code waits for a tool",
        how: How::Parked,
        promises: &[
            Promise {
                says: "at most 8 MiB each, all told",
                of: Measure::Plain(median("all told")),
                bound: Bound::AtMost(8.0),
            },
            Promise {
                says: "one among all is resumed within twice the time of one alone",
                of: ratio(median("resume among all"), median("resume at 1")),
                bound: Bound::AtMost(2.0),
            },
        ],
    },
    Row {
        name: "replay",
        what: "a cell of 100 calls one after the other, kept, against run again for each answer",
        how: How::Replay,
        promises: &[
            Promise {
                says: "at least twice as fast as the quickest replay",
                of: ratio(median("replay"), median(OURS)),
                bound: Bound::AtLeast(2.0),
            },
            Promise {
                says: "each of the hundred steps is done once",
                of: Measure::Plain(Figure { series: "belljar, steps done", at: Quantile::Max }),
                bound: Bound::AtMost(100.0),
            },
        ],
    },
    Row {
        name: "soak",
        what: "mixed claims, cells, kills, timeouts and faults; nothing is left over, no answer is wrong",
        how: How::Soak,
        promises: &[
            Promise { says: "no wrong answer", of: Measure::Plain(median("wrong answers")), bound: Bound::AtMost(0.0) },
            Promise {
                says: "nothing is left over",
                of: Measure::Plain(median("left over")),
                bound: Bound::AtMost(0.0),
            },
        ],
    },
];

/// The name of our own series in races.
pub const OURS: &str = "belljar";

const fn once(rounds: usize) -> Turns {
    Turns { rounds, each: 1 }
}

const fn ours(does: Does) -> Entrant {
    Entrant { name: OURS, does }
}

const fn peer(peer: Peer, task: Task) -> Entrant {
    Entrant { name: peer.name(), does: Does::Peer(peer, task) }
}

const fn median(series: &'static str) -> Figure {
    Figure { series, at: P50 }
}

const fn ratio(over: Figure, under: Figure) -> Measure {
    Measure::Ratio { over, under }
}

const fn faster(times: f64, peer: &'static str, says: &'static str) -> Promise {
    Promise { says, of: ratio(median(peer), median(OURS)), bound: Bound::AtLeast(times) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_promises_speak_of_entrants() {
        let mut names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
        for row in ROWS {
            let How::Race(_, entrants) = row.how else { continue };
            for promise in row.promises {
                let Measure::Ratio { over, under } = promise.of else { panic!("{}: a race promises ratios", row.name) };
                for figure in [over, under] {
                    let known = entrants.iter().any(|entrant| entrant.name == figure.series);
                    assert!(known, "{}: nobody is called {}", row.name, figure.series);
                }
            }
        }
    }
}
