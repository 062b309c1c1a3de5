//! When all of the code waits, so that calls which belong together can be told together.
//!
//! Nobody outside can tell a shell that waits for its children's calls from one that is about to make more. The kernel
//! can: as long as anything of the code could run, more may come.

use std::fs;
use std::io;

use nix::poll::PollTimeout;

/// Milliseconds between two looks double up to this, so that code which computes beside its calls is not looked at for long.
const PAUSE_MS_MAX: u16 = 64;
/// Looks after which nobody is told any more: the host has gone on without by then.
const LOOKS_MAX: u32 = 24;
/// Looks in a row that must find nobody: between two processes that are looked at, one may have woken the other.
const RESTS: u32 = 2;

/// Looks at the code from a call, or an answer, until all of it waits.
#[derive(Debug, Default)]
pub struct Quiet {
    watched: Option<Watched>,
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    looks: u32,
    rests: u32,
    pause_ms: u16,
}

impl Quiet {
    /// Code has called, or is set going again.
    pub fn disturb(&mut self) {
        self.watched = Some(Watched { looks: 0, rests: 0, pause_ms: 1 });
    }

    /// Nobody wants to know any more.
    pub fn forget(&mut self) {
        self.watched = None;
    }

    /// How long may be waited before the next look.
    pub fn timeout(&self) -> PollTimeout {
        self.watched.map_or(PollTimeout::NONE, |watched| PollTimeout::from(watched.pause_ms))
    }

    /// Looks; true once, when all of the code waits.
    pub fn look(&mut self) -> bool {
        self.found(anybody_runs().unwrap_or(true))
    }

    fn found(&mut self, somebody_runs: bool) -> bool {
        let Some(mut watched) = self.watched.take() else { return false };
        watched.looks += 1;
        if somebody_runs {
            watched.rests = 0;
            watched.pause_ms = (watched.pause_ms * 2).min(PAUSE_MS_MAX);
        } else {
            watched.rests += 1;
            watched.pause_ms = 1;
            if watched.rests >= RESTS {
                return true;
            }
        }
        if watched.looks < LOOKS_MAX {
            self.watched = Some(watched);
        }
        false
    }
}

/// Whether any thread but this process's could run, or waits for no more than a disk.
fn anybody_runs() -> io::Result<bool> {
    let me = std::process::id();
    for pid in numbers("/proc")? {
        if pid == me {
            continue;
        }
        let Some(leader) = thread(&format!("/proc/{pid}/stat")) else { continue };
        if leader.runs {
            return Ok(true);
        }
        if leader.threads <= 1 {
            continue;
        }
        // Gone by now, it has woken whoever waits for it.
        let Ok(threads) = numbers(&format!("/proc/{pid}/task")) else { continue };
        if threads.into_iter().filter_map(|tid| thread(&format!("/proc/{pid}/task/{tid}/stat"))).any(|one| one.runs) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The names in a directory that are numbers.
fn numbers(path: &str) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(found)
}

#[derive(Debug, PartialEq, Eq)]
struct Thread {
    runs: bool,
    /// How many its process has.
    threads: u32,
}

fn thread(path: &str) -> Option<Thread> {
    parse(&fs::read(path).ok()?)
}

/// proc_pid_stat(5). The second field is a name of the code's choice, in parentheses.
fn parse(stat: &[u8]) -> Option<Thread> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = stat[end + 1..].split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    // `D` is also that of a parent whose child has not executed its program yet (vfork(2)).
    let runs = matches!(fields.next()?, b"R" | b"D");
    let threads = std::str::from_utf8(fields.nth(16)?).ok()?.parse().ok()?;
    Some(Thread { runs, threads })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_quiet_after_two_looks_that_find_nobody_and_says_so_once() {
        let mut quiet = Quiet::default();
        assert!(!quiet.found(false), "nobody wants to know");
        quiet.disturb();
        let told: Vec<_> = [false, true, false, true, false, false, false].map(|runs| quiet.found(runs)).into();
        assert_eq!(told, [false, false, false, false, false, true, false]);
        assert_eq!(quiet.timeout(), PollTimeout::NONE);
    }

    #[test]
    fn code_that_computes_is_looked_at_less_and_less_and_then_no_more() {
        let mut quiet = Quiet::default();
        quiet.disturb();
        let mut pauses = Vec::new();
        while let Some(watched) = quiet.watched {
            pauses.push(watched.pause_ms);
            assert!(!quiet.found(true));
        }
        assert_eq!((pauses.len(), &pauses[..8]), (24, &[1, 2, 4, 8, 16, 32, 64, 64][..]));
        // Longer than the host waits: 1 s.
        assert!(pauses.iter().sum::<u16>() > 1000, "{pauses:?}");
    }

    #[test]
    fn whatever_a_process_calls_itself_its_state_is_read() {
        let line = |name: &str, state: &str| {
            format!("7 ({name}) {state} 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 99 100 5 18446744073709551615\n")
        };
        for name in ["bash", "a) R 1", "x\ny", "R"] {
            for (state, runs) in [("S", false), ("R", true), ("D", true), ("Z", false), ("T", false), ("I", false)] {
                let expected = Some(Thread { runs, threads: 3 });
                assert_eq!(parse(line(name, state).as_bytes()), expected, "{name} {state}");
            }
        }
        assert_eq!(parse(b"7 (bash"), None);
        assert_eq!(parse(b"7 (bash) S 1"), None);
    }

    /// The states of a thread that computes, or waits, before it is told to end.
    fn state_of(body: impl FnOnce(std::sync::mpsc::Receiver<()>) + Send + 'static) -> bool {
        let (end, ended) = std::sync::mpsc::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero()).expect("asked");
            body(ended);
        });
        let path = format!("/proc/self/task/{}/stat", told.recv().expect("told"));
        // A thread that is about to wait runs until it does.
        let runs = (0..2000).all(|_| super::thread(&path).expect("it lives").runs);
        end.send(()).expect("it listens");
        thread.join().expect("it ends");
        runs
    }

    #[test]
    fn a_thread_that_computes_runs_and_one_that_waits_does_not() {
        assert!(state_of(|ended| while ended.try_recv().is_err() {}));
        assert!(!state_of(|ended| ended.recv().expect("told to end")));
    }
}
