//! One command of bash, as asked for and answered over the control socket.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::time::Instant;

use crate::conversation::{ANSWER_WAIT_MAX, Conversation};
use crate::environment;
use crate::error::DeathReason;
use crate::frame::{Failure, FromGuest, Status, ToGuest};

/// For killing every process of a container and hearing of it. A throttled fork bomb takes 100 ms.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);
/// For removing an output directory of the largest kind.
const CLEAN_WAIT_MAX: Duration = Duration::from_secs(30);

/// Why the host stopped waiting for a command.
#[derive(Debug)]
pub enum End {
    Exited { status: Status, directory: Option<OwnedFd> },
    TimedOut,
    Cancelled,
    NotStarted(Failure),
    Died(DeathReason),
}

/// Asks for a command. The descriptors are the guest's alone afterwards.
pub async fn ask(
    talk: &mut Conversation,
    output: &str,
    text: OwnedFd,
    writers: [OwnedFd; 2],
) -> Result<u64, DeathReason> {
    let id = talk.next_id();
    let [stdout, stderr] = &writers;
    let frame = ToGuest::Run { id, output: output.to_owned(), env: environment::of_command(output) };
    talk.send(&frame, &[text.as_fd(), stdout.as_fd(), stderr.as_fd()]).await?;
    Ok(id)
}

/// Waits for the end of a command, moving its output meanwhile.
pub async fn wait(
    talk: &mut Conversation,
    id: u64,
    deadline: Instant,
    draining: impl Future,
    stopped: impl Future<Output = ()>,
) -> End {
    tokio::pin!(draining, stopped);
    let mut drained = false;
    let mut runs = false;
    let start_deadline = Instant::now() + ANSWER_WAIT_MAX;
    loop {
        tokio::select! {
            received = talk.frame() => match received {
                Ok((FromGuest::Started { id: of }, fds)) if of == id && !runs && fds.is_empty() => runs = true,
                Ok((FromGuest::Exited { id: of, status }, fds)) if of == id && runs && fds.len() <= 1 => {
                    return End::Exited { status, directory: fds.into_iter().next() };
                }
                Ok((FromGuest::Failed { id: of, failure }, fds)) if of == id && !runs && fds.is_empty() => {
                    return End::NotStarted(failure);
                }
                Ok(_) => return End::Died(DeathReason::Protocol("out of turn during a command")),
                Err(reason) => return End::Died(reason),
            },
            () = tokio::time::sleep_until(if runs { deadline } else { start_deadline }) => {
                return if runs { End::TimedOut } else { End::Died(DeathReason::Unresponsive) };
            }
            () = &mut stopped => return End::Cancelled,
            _ = &mut draining, if !drained => drained = true,
        }
    }
}

/// Kills every process of the container but process 1.
pub async fn kill(talk: &mut Conversation, id: u64, output: &str) -> Result<(), DeathReason> {
    talk.send(&ToGuest::Kill { id, output: output.to_owned() }, &[]).await?;
    let deadline = Instant::now() + KILL_WAIT_MAX;
    // At most what was under way when the kill was asked for: that the command runs, and how it ended.
    for _ in 0..3 {
        let left = deadline.saturating_duration_since(Instant::now());
        match talk.answer(left).await?.0 {
            FromGuest::Killed { id: of } if of == id => return Ok(()),
            FromGuest::Started { id: of } | FromGuest::Exited { id: of, .. } | FromGuest::Failed { id: of, .. }
                if of == id => {}
            _ => break,
        }
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

    /// A conversation whose other side says these frames and nothing else, and then lives on.
    fn with(frames: &[&str]) -> (Conversation, (OwnedFd, std::io::PipeWriter)) {
        let (channel, theirs) = Channel::pair().expect("socketpair");
        let (ended, alive) = std::io::pipe().expect("pipe");
        for frame in frames {
            send(&theirs, frame.as_bytes(), SendFlags::NOSIGNAL).expect("room");
        }
        let talk = Conversation::new(channel, ended.into(), CancellationToken::new());
        (talk.expect("watched"), (theirs, alive))
    }

    async fn end(frames: &[&str]) -> End {
        let (mut talk, _alive) = with(frames);
        let deadline = Instant::now() + Duration::from_secs(5);
        wait(&mut talk, 7, deadline, std::future::pending::<()>(), std::future::pending()).await
    }

    #[tokio::test]
    async fn a_guest_that_keeps_the_order_is_believed() {
        let exited = end(&[r#"{"started":{"id":7}}"#, r#"{"exited":{"id":7,"status":{"code":3}}}"#]).await;
        assert!(matches!(exited, End::Exited { status: Status::Code(3), directory: None }));
        let failed = end(&[r#"{"failed":{"id":7,"failure":{"errno":11}}}"#]).await;
        assert!(matches!(failed, End::NotStarted(Failure::Errno(11))));
    }

    #[tokio::test]
    async fn a_guest_out_of_turn_is_dead() {
        let started = r#"{"started":{"id":7}}"#;
        let cases: [&[&str]; 8] = [
            &[r#"{"exited":{"id":7,"status":{"code":0}}}"#],
            &[started, started],
            &[started, r#"{"exited":{"id":8,"status":{"code":0}}}"#],
            &[started, r#"{"failed":{"id":7,"failure":"busy"}}"#],
            &[r#"{"started":{"id":6}}"#],
            &[r#"{"ready":{"version":1}}"#],
            &[started, r#"{"killed":{"id":7}}"#],
            &[started, r#"{"opened":{"id":7}}"#],
        ];
        for frames in cases {
            let end = end(frames).await;
            let out_of_turn = DeathReason::Protocol("out of turn during a command");
            assert!(matches!(&end, End::Died(reason) if *reason == out_of_turn), "{frames:?}: {end:?}");
        }
        let nonsense = end(&[started, r#"{"exited":{"id":7,"status":{"code":256}}}"#]).await;
        let meaningless = DeathReason::Protocol("a frame without meaning");
        assert!(matches!(&nonsense, End::Died(reason) if *reason == meaningless), "{nonsense:?}");
    }

    #[tokio::test]
    async fn a_kill_crosses_with_an_end_but_not_with_anything_else() {
        let exited = r#"{"exited":{"id":7,"status":{"signal":9}}}"#;
        let killed = r#"{"killed":{"id":7}}"#;
        let out_of_turn = Err(DeathReason::Protocol("out of turn during a kill"));
        let cases: [(&[&str], Result<(), DeathReason>); 4] = [
            (&[killed], Ok(())),
            (&[r#"{"started":{"id":7}}"#, exited, killed], Ok(())),
            (&[exited, exited, exited, killed], out_of_turn.clone()),
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
        let silent = end(&[]).await;
        assert!(matches!(silent, End::Died(DeathReason::Unresponsive)), "{silent:?}");
    }

    #[tokio::test]
    async fn a_dead_guest_is_noticed_though_its_socket_is_held_open() {
        let (mut talk, (_socket, alive)) = with(&[]);
        drop(alive);
        assert_eq!(talk.frame().await.err(), Some(DeathReason::SupervisorEnded));
    }
}
