//! One command of bash, as asked for and answered over the control socket.

mod calls;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::calls::Word;
use crate::cell::in_memory;
use crate::channel::Received;
use crate::clock::Clock;
use crate::conversation::{ANSWER_WAIT_MAX, Conversation};
use crate::error::DeathReason;
use crate::frame::{Failure, FromGuest, OutputState, Status, ToGuest};
use crate::handover::HandedContainer;
use crate::keeper::Answer;
use crate::outcome::InterpreterEnd;
use crate::tools::CodeTools;

use calls::Called;
pub use calls::{Calls, HandedCalls};

/// For killing every process of a container and hearing of it. A throttled fork bomb takes 100 ms.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);
/// For removing an output directory of the largest kind.
const CLEAN_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long an interrupted cell may take to end, where its end was asked for.
pub const INTERRUPTED_WAIT_MAX: Duration = Duration::from_secs(2);

/// How the wait for a cell ended.
#[derive(Debug)]
pub struct End {
    /// What the host did to end it.
    pub stop: Option<Stop>,
    pub ending: Ending,
}

/// Why the host wanted a cell to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Its time was up.
    Time,
    /// Somebody asked for it, or nobody waited any more.
    Request,
}

/// What became of a cell.
#[derive(Debug)]
pub enum Ending {
    /// It ended by itself, or because it was interrupted.
    Exited {
        status: Status,
        output: OutputDirectory,
    },
    /// It runs, and must be killed.
    Overdue,
    /// Its interpreter ended.
    Interpreter(InterpreterEnd),
    NotStarted(Failure),
    Died(DeathReason),
}

/// Instead of an end: the cell waits on, for another program to be its host.
#[derive(Debug)]
pub struct HandOver(pub oneshot::Sender<Answer<HandedContainer>>);

/// A cell's output directory at its end.
#[derive(Debug)]
pub enum OutputDirectory {
    /// Empty, and removed.
    Removed,
    Held(OwnedFd),
    /// There, but whoever ran the cell could not pass it on.
    Unsent,
    /// Removed or replaced by the code.
    Gone,
}

impl OutputDirectory {
    /// What was said of it, with the descriptors beside; none when they do not belong to that.
    pub fn of(said: OutputState, fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        match (said, fds.next(), fds.next()) {
            (OutputState::None, None, None) => Some(Self::Removed),
            (OutputState::Files, Some(directory), None) => Some(Self::Held(directory)),
            (OutputState::Unsent, None, None) => Some(Self::Unsent),
            (OutputState::Gone, None, None) => Some(Self::Gone),
            _ => None,
        }
    }
}

/// Offers tools to the next command, as commands of its own.
pub async fn offer(talk: &mut Conversation, tools: &CodeTools) -> Result<Result<(), Failure>, DeathReason> {
    let offered = in_memory(&calls::offered(tools)).map_err(calls::no_memory)?;
    let id = talk.next_id();
    talk.send(&ToGuest::Tools { id }, &[offered.as_fd()]).await?;
    match talk.answer(ANSWER_WAIT_MAX).await? {
        (FromGuest::Offered { id: of }, fds) if of == id && fds.is_empty() => Ok(Ok(())),
        (FromGuest::Failed { id: of, failure }, fds) if of == id && fds.is_empty() => Ok(Err(failure)),
        _ => Err(DeathReason::Protocol("out of turn while offering tools")),
    }
}

/// Asks for a command. The descriptors are the guest's alone afterwards.
pub async fn ask(
    talk: &mut Conversation,
    output: &str,
    env: Vec<(String, String)>,
    text: OwnedFd,
    writers: [OwnedFd; 2],
) -> Result<u64, DeathReason> {
    let id = talk.next_id();
    let [stdout, stderr] = &writers;
    let frame = ToGuest::Run { id, output: output.to_owned(), env };
    talk.send(&frame, &[text.as_fd(), stdout.as_fd(), stderr.as_fd()]).await?;
    Ok(id)
}

/// What is watched about a running command but its end.
pub struct Watch<'a, C> {
    pub clock: &'a mut Clock,
    /// How much the container has used of the processor.
    pub cpu: C,
    /// Of the command's, if it may make any.
    pub calls: &'a mut Option<Calls>,
}

impl<C: Fn() -> Duration> Watch<'_, C> {
    /// Waits for something to carry but from the command. Cancel-safe.
    async fn said(&mut self) -> Say {
        match self.calls {
            Some(calls) => calls.said(&self.cpu).await,
            None => std::future::pending().await,
        }
    }

    /// Keeps the time by whose turn it is.
    fn keep_time(&mut self) {
        if self.calls.as_ref().is_some_and(Calls::waits) {
            self.clock.stand(&self.cpu);
        } else {
            self.clock.run(&self.cpu);
        }
    }

    async fn pass_on(&mut self, talk: &mut Conversation) -> Result<(), DeathReason> {
        match self.calls {
            Some(calls) => calls.pass_on(talk).await,
            None => Ok(()),
        }
    }

    /// Carries what the holder and the callers say to each other.
    async fn carry(&mut self, say: Say, talk: &mut Conversation) -> Result<(), DeathReason> {
        if let Some(calls) = self.calls {
            match say {
                Say::Nothing => {}
                Say::Word(word) => calls.heed(word),
                Say::Calls => calls.tell(),
            }
        }
        self.keep_time();
        self.pass_on(talk).await
    }
}

/// What is to be carried.
pub enum Say {
    /// What is due anyway.
    Nothing,
    /// The holder's word.
    Word(Word),
    /// New calls, to the holder.
    Calls,
}

/// How far a command has come when somebody begins to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Asked,
    Runs,
}

/// Waits for the end of a command, moving its output and carrying its calls meanwhile.
pub async fn wait(
    talk: &mut Conversation,
    (id, stage): (u64, Stage),
    watch: &mut Watch<'_, impl Fn() -> Duration>,
    draining: impl Future,
    stopped: impl Future<Output = ()>,
) -> Result<End, HandOver> {
    tokio::pin!(draining, stopped);
    let mut drained = false;
    let mut waiting = Waiting { id, runs: stage == Stage::Runs, stop: None, interrupt: None };
    let started_by = Instant::now() + ANSWER_WAIT_MAX;
    let mut stopped_by = None;
    let ending = loop {
        let watched = watch.clock.look_at();
        let limit = if waiting.runs { stopped_by.map_or(watched, |by| watched.min(by)) } else { started_by };
        let carried = tokio::select! {
            received = talk.frame() => match waiting.take(received, watch.calls) {
                Some(ending) => break ending,
                None => Say::Nothing,
            },
            () = tokio::time::sleep_until(limit) => {
                if !waiting.runs {
                    break Ending::Died(DeathReason::Unresponsive);
                }
                if stopped_by.is_none_or(|by| Instant::now() < by) && !watch.clock.is_up(&watch.cpu) {
                    continue;
                }
                waiting.stop = waiting.stop.or(Some(Stop::Time));
                break Ending::Overdue;
            }
            () = &mut stopped, if waiting.runs && waiting.stop.is_none() => {
                waiting.stop = Some(Stop::Request);
                stopped_by = Some(Instant::now() + INTERRUPTED_WAIT_MAX);
                match interrupt(talk, None).await {
                    Ok(asked) => waiting.interrupt = Some(asked),
                    Err(reason) => break Ending::Died(reason),
                }
                continue;
            }
            _ = &mut draining, if !drained => {
                drained = true;
                continue;
            }
            said = watch.said(), if waiting.stop.is_none() => match said {
                Say::Word(Word::HandOver(reply)) => return Err(HandOver(reply)),
                said => said,
            },
        };
        if let Err(reason) = watch.carry(carried, talk).await {
            break Ending::Died(reason);
        }
    };
    let ending = settled(talk, ending, waiting.interrupt).await;
    Ok(End { stop: waiting.stop, ending })
}

/// What is known of a command under way.
struct Waiting {
    id: u64,
    runs: bool,
    stop: Option<Stop>,
    /// The number of an interrupt that has not been answered.
    interrupt: Option<u64>,
}

impl Waiting {
    fn take(&mut self, received: Result<Received, DeathReason>, calls: &mut Option<Calls>) -> Option<Ending> {
        let (frame, fds) = match received {
            Ok(received) => received,
            Err(reason) => {
                self.interrupt = None;
                return Some(Ending::Died(reason));
            }
        };
        match frame {
            FromGuest::Started { id } if id == self.id && !self.runs && fds.is_empty() => {
                self.runs = true;
                None
            }
            // A REPL's word alone.
            FromGuest::Exited { output: OutputState::Unsent, .. } => Some(self.out_of_turn()),
            FromGuest::Exited { id, status, output } if id == self.id && self.runs => {
                let output = OutputDirectory::of(output, fds);
                Some(output.map_or_else(|| self.out_of_turn(), |output| Ending::Exited { status, output }))
            }
            FromGuest::Failed { id, failure } if id == self.id && !self.runs && fds.is_empty() => {
                Some(Ending::NotStarted(failure))
            }
            FromGuest::Interrupted { id } if Some(id) == self.interrupt && fds.is_empty() => {
                self.interrupt = None;
                None
            }
            FromGuest::Called { id, call, function, text, piece }
                if id == self.id && self.runs && fds.is_empty() && calls.is_some() =>
            {
                let taken = calls.as_mut().map_or(Ok(()), |calls| calls.take(Called { call, function, text, piece }));
                taken.err().map(|broken| Ending::Died(DeathReason::Protocol(broken)))
            }
            FromGuest::Quiet { id } if id == self.id && self.runs && fds.is_empty() && calls.is_some() => {
                calls.iter_mut().for_each(Calls::quiet);
                None
            }
            // To what was said when the holder sent others.
            FromGuest::Offered { .. } if calls.is_some() && self.runs && fds.is_empty() => None,
            _ => Some(self.out_of_turn()),
        }
    }

    fn out_of_turn(&mut self) -> Ending {
        self.interrupt = None;
        Ending::Died(DeathReason::Protocol("out of turn during a command"))
    }
}

/// Sends SIGINT, as Ctrl-C does, to a process group of the container, or to that of the running command. The answer
/// must be heard, by [`settled`] or by a kill, before anything else is asked for.
pub async fn interrupt(talk: &mut Conversation, pid: Option<u32>) -> Result<u64, DeathReason> {
    let id = talk.next_id();
    talk.send(&ToGuest::Interrupt { id, pid }, &[]).await?;
    Ok(id)
}

/// Waits until an interrupt, if one is under way, has been sent: none may reach a later cell. What is to be killed need
/// not wait: a supervisor that shares its processor with a fork bomb is slow until the kill makes it fast.
pub async fn settled(talk: &mut Conversation, ending: Ending, interrupt: Option<u64>) -> Ending {
    if matches!(ending, Ending::Overdue | Ending::Interpreter(InterpreterEnd::Breach(_))) {
        return ending;
    }
    match heard_of_interrupt(talk, interrupt).await {
        Ok(()) => ending,
        Err(reason) => Ending::Died(reason),
    }
}

async fn heard_of_interrupt(talk: &mut Conversation, asked: Option<u64>) -> Result<(), DeathReason> {
    let Some(asked) = asked else {
        return Ok(());
    };
    // The command's end may cross with it.
    for _ in 0..2 {
        match talk.answer(ANSWER_WAIT_MAX).await? {
            (FromGuest::Interrupted { id }, fds) if id == asked && fds.is_empty() => return Ok(()),
            (FromGuest::Exited { .. }, _) => {}
            _ => break,
        }
    }
    Err(DeathReason::Protocol("out of turn during an interrupt"))
}

/// What is free on the container's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFree {
    pub bytes: u64,
    pub inodes: u64,
}

/// Asks for what is free on the container's disk.
pub async fn disk(talk: &mut Conversation) -> Result<Option<DiskFree>, DeathReason> {
    let id = talk.next_id();
    talk.send(&ToGuest::Disk { id }, &[]).await?;
    match talk.answer(ANSWER_WAIT_MAX).await? {
        (FromGuest::Disk { id: of, free_bytes, free_inodes }, fds) if of == id && fds.is_empty() => {
            Ok(Some(DiskFree { bytes: free_bytes, inodes: free_inodes }))
        }
        (FromGuest::Failed { id: of, .. }, fds) if of == id && fds.is_empty() => Ok(None),
        _ => Err(DeathReason::Protocol("out of turn while asking for its disk")),
    }
}

/// Opens a cell's output directory, where the REPL that should have sent it is no more or could not. It may have removed it.
pub async fn output(talk: &mut Conversation, output: &str) -> Result<OutputDirectory, DeathReason> {
    let id = talk.next_id();
    talk.send(&ToGuest::Output { id, output: output.to_owned() }, &[]).await?;
    match talk.answer(ANSWER_WAIT_MAX).await? {
        (FromGuest::Output { id: of }, fds) if of == id && fds.len() <= 1 => {
            Ok(fds.into_iter().next().map_or(OutputDirectory::Removed, OutputDirectory::Held))
        }
        _ => Err(DeathReason::Protocol("out of turn while opening an output directory")),
    }
}

/// Kills every process of the container but process 1.
pub async fn kill(talk: &mut Conversation, id: u64, output: &str) -> Result<(), DeathReason> {
    talk.send(&ToGuest::Kill { id, output: output.to_owned() }, &[]).await?;
    let deadline = Instant::now() + KILL_WAIT_MAX;
    // At most what was under way when the kill was asked for: that the command runs, how it ended, that it was
    // interrupted, that others tools are offered; and whatever it called before.
    let mut others = 0;
    while others < 4 {
        let left = deadline.saturating_duration_since(Instant::now());
        match talk.answer(left).await?.0 {
            FromGuest::Killed { id: of } if of == id => return Ok(()),
            FromGuest::Called { id: of, .. } | FromGuest::Quiet { id: of } if of == id => continue,
            FromGuest::Started { id: of } | FromGuest::Exited { id: of, .. } | FromGuest::Failed { id: of, .. }
                if of == id => {}
            FromGuest::Interrupted { .. } | FromGuest::Offered { .. } => {}
            _ => break,
        }
        others += 1;
    }
    Err(DeathReason::Protocol("out of turn during a kill"))
}

/// Removes a command's output directory.
pub async fn clean(talk: &mut Conversation, output: String) -> Result<(), DeathReason> {
    let id = talk.next_id();
    talk.send(&ToGuest::Clean { id, output }, &[]).await?;
    match talk.answer(CLEAN_WAIT_MAX).await? {
        (FromGuest::Cleaned { id: of, whole }, fds) if of == id && fds.is_empty() => {
            if !whole {
                tracing::debug!("an output directory was left behind in its container");
            }
            Ok(())
        }
        _ => Err(DeathReason::Protocol("out of turn during a removal")),
    }
}

/// A failure of the guest in words.
pub fn said(failure: Failure) -> String {
    match failure {
        Failure::Errno(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
        Failure::IsDirectory => "is a directory".to_owned(),
        Failure::NotRegular => "is not a regular file".to_owned(),
        Failure::Incomplete => "the content ended early".to_owned(),
        Failure::Busy => "a command is running already".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Channel;
    use rustix::net::{SendFlags, send};
    use tokio_util::sync::CancellationToken;

    async fn waited(talk: &mut Conversation, stopped: impl Future<Output = ()>) -> End {
        let mut clock = Clock::start(Duration::from_secs(5), 1.0);
        let mut watch = Watch { clock: &mut clock, cpu: || Duration::ZERO, calls: &mut None };
        let asked = (7, Stage::Asked);
        wait(talk, asked, &mut watch, std::future::pending::<()>(), stopped).await.expect("nobody hands it over")
    }

    /// A conversation whose other side says these frames and nothing else, and then lives on.
    fn with(frames: &[&str]) -> (Conversation, (OwnedFd, std::io::PipeWriter)) {
        let (channel, theirs) = Channel::pair().expect("socketpair");
        let (ended, alive) = std::io::pipe().expect("pipe");
        for frame in frames {
            send(&theirs, frame.as_bytes(), SendFlags::NOSIGNAL).expect("room");
        }
        let talk = Conversation::new(channel, std::sync::Arc::new(ended.into()), CancellationToken::new());
        (talk.expect("watched"), (theirs, alive))
    }

    async fn ending(frames: &[&str]) -> Ending {
        let (mut talk, _alive) = with(frames);
        waited(&mut talk, std::future::pending()).await.ending
    }

    #[tokio::test]
    async fn a_guest_that_keeps_the_order_is_believed() {
        let started = r#"{"started":{"id":7}}"#;
        let removed = ending(&[started, r#"{"exited":{"id":7,"status":{"code":3},"output":"none"}}"#]).await;
        assert!(matches!(removed, Ending::Exited { status: Status::Code(3), output: OutputDirectory::Removed }));
        let gone = ending(&[started, r#"{"exited":{"id":7,"status":{"signal":9},"output":"gone"}}"#]).await;
        assert!(matches!(gone, Ending::Exited { status: Status::Signal(9), output: OutputDirectory::Gone }));
        let failed = ending(&[r#"{"failed":{"id":7,"failure":{"errno":11}}}"#]).await;
        assert!(matches!(failed, Ending::NotStarted(Failure::Errno(11))));
    }

    #[tokio::test]
    async fn a_guest_out_of_turn_is_dead() {
        let started = r#"{"started":{"id":7}}"#;
        let cases: [&[&str]; 14] = [
            &[r#"{"exited":{"id":7,"status":{"code":0},"output":"none"}}"#],
            // Nothing came beside it; and the other is a REPL's word.
            &[started, r#"{"exited":{"id":7,"status":{"code":0},"output":"files"}}"#],
            &[started, r#"{"exited":{"id":7,"status":{"code":0},"output":"unsent"}}"#],
            &[started, started],
            &[started, r#"{"exited":{"id":8,"status":{"code":0},"output":"none"}}"#],
            &[started, r#"{"failed":{"id":7,"failure":"busy"}}"#],
            &[r#"{"started":{"id":6}}"#],
            &[r#"{"ready":{"version":1}}"#],
            &[started, r#"{"killed":{"id":7}}"#],
            &[started, r#"{"opened":{"id":7}}"#],
            &[started, r#"{"interrupted":{"id":1}}"#],
            &[started, r#"{"repl_status":{"id":1,"status":{"code":0}}}"#],
            &[started, r#"{"disk":{"id":7,"free_bytes":0,"free_inodes":0}}"#],
            &[started, r#"{"repl_started":{"id":7,"pid":2}}"#],
        ];
        for frames in cases {
            let ending = ending(frames).await;
            let out_of_turn = DeathReason::Protocol("out of turn during a command");
            assert!(matches!(&ending, Ending::Died(reason) if *reason == out_of_turn), "{frames:?}: {ending:?}");
        }
        // This command was given no tools.
        let called = r#"{"called":{"id":7,"call":1,"function":"f","text":"{}","piece":"last"}}"#;
        let unasked = ending(&[started, called]).await;
        assert!(matches!(&unasked, Ending::Died(DeathReason::Protocol("out of turn during a command"))), "{unasked:?}");
        let nonsense = ending(&[started, r#"{"exited":{"id":7,"status":{"code":256},"output":"none"}}"#]).await;
        let meaningless = DeathReason::Protocol("a frame without meaning");
        assert!(matches!(&nonsense, Ending::Died(reason) if *reason == meaningless), "{nonsense:?}");
    }

    /// As a supervisor: what is said once the interrupt has been asked for.
    async fn interrupted(answers: [&'static str; 2]) -> End {
        let (mut talk, (theirs, alive)) = with(&[r#"{"started":{"id":7}}"#]);
        let (tell, told) = tokio::sync::oneshot::channel();
        let guest = std::thread::spawn(move || {
            let mut buffer = [0; 256];
            let (length, _) = rustix::net::recv(&theirs, &mut buffer, rustix::net::RecvFlags::empty()).expect("asked");
            assert_eq!(&buffer[..length], br#"{"interrupt":{"id":1,"pid":null}}"#);
            for answer in answers {
                send(&theirs, answer.as_bytes(), SendFlags::NOSIGNAL).expect("room");
            }
            // Both ends stay open until the wait is over.
            let _over = told.blocking_recv();
            drop((theirs, alive));
        });
        let end = waited(&mut talk, std::future::ready(())).await;
        tell.send(()).expect("the guest is there");
        guest.join().expect("no panic");
        end
    }

    #[tokio::test]
    async fn an_interrupt_is_answered_before_the_wait_is_over() {
        let (exited, answered) =
            (r#"{"exited":{"id":7,"status":{"signal":2},"output":"none"}}"#, r#"{"interrupted":{"id":1}}"#);
        for answers in [[answered, exited], [exited, answered]] {
            let End { stop, ending } = interrupted(answers).await;
            assert_eq!(stop, Some(Stop::Request), "{answers:?}");
            let by_signal = matches!(ending, Ending::Exited { status: Status::Signal(2), .. });
            assert!(by_signal, "{answers:?}: {ending:?}");
        }
        let End { ending, .. } = interrupted([exited, r#"{"interrupted":{"id":2}}"#]).await;
        assert!(matches!(ending, Ending::Died(DeathReason::Protocol("out of turn during an interrupt"))), "{ending:?}");
    }

    #[tokio::test]
    async fn a_kill_crosses_with_an_end_but_not_with_anything_else() {
        let exited = r#"{"exited":{"id":7,"status":{"signal":9},"output":"none"}}"#;
        let killed = r#"{"killed":{"id":7}}"#;
        let out_of_turn = Err(DeathReason::Protocol("out of turn during a kill"));
        let cases: [(&[&str], Result<(), DeathReason>); 5] = [
            (&[killed], Ok(())),
            (&[r#"{"started":{"id":7}}"#, exited, killed], Ok(())),
            (&[r#"{"interrupted":{"id":3}}"#, exited, killed], Ok(())),
            (&[exited, exited, exited, exited, killed], out_of_turn.clone()),
            (&[r#"{"killed":{"id":8}}"#], out_of_turn),
        ];
        for (frames, outcome) in cases {
            let (mut talk, _alive) = with(frames);
            assert_eq!(kill(&mut talk, 7, "0").await, outcome, "{frames:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_guest_is_given_up() {
        let (mut talk, _alive) = with(&[]);
        assert_eq!(kill(&mut talk, 7, "0").await, Err(DeathReason::Unresponsive));
        let (mut talk, _alive) = with(&[]);
        assert_eq!(clean(&mut talk, "0".to_owned()).await, Err(DeathReason::Unresponsive));
        let silent = ending(&[]).await;
        assert!(matches!(silent, Ending::Died(DeathReason::Unresponsive)), "{silent:?}");
    }

    #[tokio::test]
    async fn a_dead_guest_is_noticed_though_its_socket_is_held_open() {
        let (mut talk, (_socket, alive)) = with(&[]);
        drop(alive);
        assert_eq!(talk.frame().await.err(), Some(DeathReason::SupervisorEnded));
    }
}
