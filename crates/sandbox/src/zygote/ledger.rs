//! What is open between the host and one zygote: forks that were asked for, and children that live.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::io::Interest;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::frame::FromZygote;
use super::{ForkError, Forked};
use crate::frame::Status;
use crate::watch::watch;

type Reply = oneshot::Sender<Result<Forked, ForkError>>;

/// See the module's head.
#[derive(Default)]
pub struct Ledger {
    requests: u64,
    asked: HashMap<u64, Reply>,
    living: HashMap<i32, Living>,
}

/// A child whose end somebody wants to hear of.
struct Living {
    /// The REPL's owner has the same one.
    pidfd: Arc<OwnedFd>,
    status: oneshot::Sender<Status>,
}

impl Ledger {
    /// Writes a request down under a new number.
    pub fn ask(&mut self, reply: Reply) -> u64 {
        self.requests += 1;
        self.asked.insert(self.requests, reply);
        self.requests
    }

    /// The request was not sent.
    pub fn take_back(&mut self, id: u64, error: ForkError) {
        if let Some(reply) = self.asked.remove(&id) {
            let _nobody_waits = reply.send(Err(error));
        }
    }

    /// The children that live, as the host numbers them.
    pub fn living(&self) -> Vec<i32> {
        self.living.keys().copied().collect()
    }

    /// Expects the end of a child that was forked before, and tells it to the other end of `status`.
    pub fn adopt(&mut self, pid: i32, pidfd: Arc<OwnedFd>, status: oneshot::Sender<Status>) {
        self.living.insert(pid, Living { pidfd, status });
    }

    /// How many forks are under way.
    pub fn under_way(&self) -> usize {
        self.asked.len()
    }

    /// Does what a frame says; an error is the rule it breaks.
    pub fn heard(&mut self, frame: FromZygote, fds: Vec<OwnedFd>) -> Result<(), &'static str> {
        let mut fds = fds.into_iter();
        match (frame, fds.next(), fds.next()) {
            (FromZygote::Forked { id, pid }, Some(pidfd), None) => self.forked(id, pid, pidfd),
            (FromZygote::Refused { id, errno }, None, None) => {
                let reply = self.asked.remove(&id).ok_or("an answer to nothing")?;
                let _nobody_waits = reply.send(Err(ForkError::Refused(Errno::from_raw_os_error(errno))));
                Ok(())
            }
            (FromZygote::Ended { pid, status }, None, None) => {
                let living = self.living.remove(&pid).ok_or("the end of a stranger")?;
                // A REPL's owner may not care any more.
                let _nobody_waits = living.status.send(status);
                Ok(())
            }
            (FromZygote::Ready { .. }, ..) => Err("ready twice"),
            _ => Err("a frame with other descriptors than its own"),
        }
    }

    /// As [`Ledger::heard`], of a zygote that has children whom nobody has claimed.
    pub fn heard_of_old(
        &mut self,
        frame: FromZygote,
        fds: Vec<OwnedFd>,
        unclaimed: &mut Vec<i32>,
    ) -> Result<(), &'static str> {
        if let FromZygote::Ended { pid, .. } = frame
            && unclaimed.contains(&pid)
            && fds.is_empty()
        {
            unclaimed.retain(|child| *child != pid);
            return Ok(());
        }
        self.heard(frame, fds)
    }

    fn forked(&mut self, id: u64, pid: i32, pidfd: OwnedFd) -> Result<(), &'static str> {
        let reply = self.asked.remove(&id).ok_or("an answer to nothing")?;
        let child = Pid::from_raw(pid).filter(|_| pid > 1).ok_or("a child that is none")?;
        let (told, status) = oneshot::channel();
        let pidfd = Arc::new(pidfd);
        if self.living.insert(pid, Living { pidfd: Arc::clone(&pidfd), status: told }).is_some() {
            return Err("a child that lives already");
        }
        // When nobody waits any more, what comes back is dropped, and so killed.
        let _nobody_waits = reply.send(Ok(Forked { pid: child, living: Some((pidfd, status)) }));
        Ok(())
    }

    /// The zygote is gone: answers what was asked, and waits for the ends of the children it has left behind.
    ///
    /// They are this process's to reap when it is the machine's, or the container's, process 1; else somebody else does.
    pub async fn close(self) {
        for reply in self.asked.into_values() {
            let _nobody_waits = reply.send(Err(ForkError::Ended));
        }
        // All at once: how one ended is not to be told only when another has.
        let mut ends: JoinSet<()> = self.living.into_values().map(Living::end).collect();
        while ends.join_next().await.is_some() {}
    }
}

impl Living {
    /// Waits for its end, and tells how it was.
    async fn end(self) {
        // A descriptor of its own: the one that is shared is watched by the REPL's owner.
        let own = self.pidfd.try_clone();
        let Ok(ended) = own.and_then(|own| watch(own, Interest::READABLE)) else { return };
        if ended.readable().await.is_err() {
            return;
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if let Ok(Some(end)) = waitid(WaitId::PidFd(ended.get_ref().as_fd()), options) {
            let status = match (end.exit_status(), end.terminating_signal()) {
                (Some(code), _) => u8::try_from(code & 0xff).map(Status::Code),
                (None, signal) => u8::try_from(signal.unwrap_or_default()).map(Status::Signal),
            };
            let _nobody_waits = status.map(|status| self.status.send(status));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").expect("null").into()
    }

    fn asked(ledger: &mut Ledger) -> (u64, oneshot::Receiver<Result<Forked, ForkError>>) {
        let (reply, answer) = oneshot::channel();
        (ledger.ask(reply), answer)
    }

    #[test]
    fn answers_find_whoever_asked_in_any_order() {
        let mut ledger = Ledger::default();
        let (first, mut first_answer) = asked(&mut ledger);
        let (second, mut second_answer) = asked(&mut ledger);
        ledger.heard(FromZygote::Forked { id: second, pid: 70_000 }, vec![descriptor()]).expect("in order");
        ledger.heard(FromZygote::Refused { id: first, errno: 11 }, vec![]).expect("in order");
        let refused = first_answer.try_recv().expect("answered").expect_err("refused");
        assert!(matches!(refused, ForkError::Refused(Errno::AGAIN)), "{refused}");
        let forked = second_answer.try_recv().expect("answered").expect("forked");
        assert_eq!((forked.pid().as_raw_nonzero().get(), ledger.under_way()), (70_000, 0));
        let (_pidfd, mut status) = forked.into_parts().expect("lives");
        ledger.heard(FromZygote::Ended { pid: 70_000, status: Status::Code(3) }, vec![]).expect("in order");
        assert_eq!(status.try_recv(), Ok(Status::Code(3)));
    }

    #[test]
    fn a_zygote_out_of_order_is_found_out() {
        let forked = |id, pid| FromZygote::Forked { id, pid };
        let ended = |pid| FromZygote::Ended { pid, status: Status::Code(0) };
        let cases: [(Vec<(FromZygote, usize)>, &str); 7] = [
            (vec![(forked(9, 5), 1)], "an answer to nothing"),
            (vec![(FromZygote::Refused { id: 9, errno: 1 }, 0)], "an answer to nothing"),
            (vec![(forked(1, 5), 0)], "a frame with other descriptors than its own"),
            (vec![(forked(1, 5), 2)], "a frame with other descriptors than its own"),
            (vec![(forked(1, 1), 1)], "a child that is none"),
            (vec![(ended(5), 0)], "the end of a stranger"),
            (vec![(forked(1, 5), 1), (forked(1, 6), 1)], "an answer to nothing"),
        ];
        for (frames, rule) in cases {
            let mut ledger = Ledger::default();
            let (_, answer) = asked(&mut ledger);
            let mut last = Ok(());
            for (frame, count) in frames {
                last = ledger.heard(frame, (0..count).map(|_| descriptor()).collect());
            }
            assert_eq!(last, Err(rule));
            drop(answer);
        }
    }

    #[tokio::test]
    async fn the_end_of_a_zygote_is_an_answer() {
        let mut ledger = Ledger::default();
        let (_, mut answer) = asked(&mut ledger);
        ledger.close().await;
        assert!(matches!(answer.try_recv(), Ok(Err(ForkError::Ended))));
    }
}
