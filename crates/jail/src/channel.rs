//! What host and guest program say to each other while a jail is being set up.
//!
//! A `SOCK_SEQPACKET` pair: one message, one packet. Nothing is said here once the jail is sealed.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use crate::plan::{JailPlan, Sizes};
use crate::step::SetupError;
use crate::zygote::ZygoteOrder;

/// The most descriptors an order carries: a zygote's realm, pid namespace, files, lifeline and standard error.
const ORDER_FDS_MAX: usize = 5;

/// What the guest program is told to become; the first word of the host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Order {
    /// A user namespace, and then nothing more.
    Realm,
    /// Process 1 of a container. Carries the realm.
    Container(Box<JailPlan>),
    /// A nursery of containers with this plan. Carries the realm.
    Nursery(Box<JailPlan>),
    /// A zygote. Carries the realm, the pid namespace, the files, the lifeline, and standard error if there is one.
    Zygote(Box<ZygoteOrder>),
}

/// A plan's serialised size must stay below this; a packet larger than the socket's buffer could not be sent.
pub(crate) const PLAN_BYTES_MAX: usize = 128 * 1024;

/// What a nursery is told of the next container, with what comes beside that.
pub(crate) struct Ordered {
    pub(crate) sizes: Sizes,
    pub(crate) channel: OwnedFd,
    pub(crate) control: OwnedFd,
    pub(crate) entrances: Vec<OwnedFd>,
}

/// Longest [`Sizes`].
const SIZES_BYTES_MAX: usize = 256;

/// Descriptors before the entrances.
const BIRTH_FDS: usize = 2;

/// The most cgroups that a process is put into: one for each controller of version 1, and version 2's.
const ENTRANCES_MAX: usize = 8;

/// What comes with the entrances of the cgroups.
const ENTER: &[u8] = b"enter";

/// Longest message from the guest program.
const REPORT_BYTES_MAX: usize = 512;

/// The host's "go on".
const GO: &[u8] = b"go";

/// From the guest program to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The realm's user namespace stands; its id maps are to be written.
    UserNamespace,
    /// A nursery waits for its first container.
    Nursery,
    /// Process 1 exists and waits; its id in the host's pid namespace.
    ProcessOne(i32),
    /// Process 1, born in a nursery, has all its namespaces. It waits for nobody with that. Said only
    /// where they can be opened for a moment, see [`crate::Identity::hides_its_processes`].
    Apart,
    /// The jail is complete; from a zygote, all is but for its program.
    Sealed,
    /// A step failed.
    Failed(SetupError),
}

/// The two ends: the host's, the guest program's.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one packet whole.
pub(crate) fn send_packet(fd: impl AsFd, packet: &[u8]) -> Result<(), Errno> {
    let sent = rustix::io::retry_on_intr(|| send(&fd, packet, SendFlags::NOSIGNAL))?;
    if sent == packet.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
}

/// Receives one packet of at most `bytes_max`; `None` when the other end is gone.
pub(crate) fn receive_packet(fd: impl AsFd, bytes_max: usize) -> Result<Option<Vec<u8>>, Errno> {
    let mut packet = vec![0; bytes_max];
    let (_, length) = rustix::io::retry_on_intr(|| recv(&fd, packet.as_mut_slice(), RecvFlags::TRUNC))?;
    if length > bytes_max {
        return Err(Errno::MSGSIZE);
    }
    packet.truncate(length);
    Ok((length > 0).then_some(packet))
}

/// Sends the entrances of the cgroups that the guest program is to enter before it reads its order; there may be none.
pub(crate) fn send_entrances(socket: impl AsFd, entrances: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    send_beside(socket, ENTER, entrances)
}

/// Receives what [`send_entrances`] sent; `EPIPE` when the host is gone.
pub(crate) fn receive_entrances(socket: impl AsFd) -> Result<Vec<OwnedFd>, Errno> {
    let mut packet = [0; ENTER.len()];
    match receive_beside(socket, &mut packet)? {
        (0, _) => Err(Errno::PIPE),
        (_, entrances) if packet == ENTER => Ok(entrances),
        _ => Err(Errno::BADMSG),
    }
}

/// Sends an order with its descriptors.
pub(crate) fn send_order(socket: impl AsFd, order: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    send_beside(socket, order, fds)
}

/// Receives the order; `EPIPE` when the host is gone.
pub(crate) fn receive_order(socket: impl AsFd) -> Result<(Order, Vec<OwnedFd>), Errno> {
    let mut packet = vec![0; PLAN_BYTES_MAX];
    let (length, fds) = receive_beside(socket, &mut packet)?;
    match packet.get(..length) {
        Some([]) | None => Err(Errno::PIPE),
        Some(packet) => Ok((serde_json::from_slice(packet).map_err(|_| Errno::BADMSG)?, fds)),
    }
}

/// Orders a container from a nursery.
pub(crate) fn send_birth(
    socket: impl AsFd,
    sizes: &Sizes,
    fds: [BorrowedFd<'_>; BIRTH_FDS],
    entrances: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let packet = serde_json::to_vec(sizes).map_err(|_| Errno::INVAL)?;
    send_beside(socket, &packet, &[&fds, entrances].concat())
}

/// The next container that a nursery is to bear; `None` when the host is gone.
pub(crate) fn receive_birth(socket: impl AsFd) -> Result<Option<Ordered>, Errno> {
    let mut packet = [0; SIZES_BYTES_MAX];
    let (length, mut fds) = receive_beside(socket, &mut packet)?;
    let packet = packet.get(..length).unwrap_or_default();
    if packet.is_empty() {
        return Ok(None);
    }
    let sizes = serde_json::from_slice(packet).map_err(|_| Errno::BADMSG)?;
    let entrances = if fds.len() < BIRTH_FDS { Vec::new() } else { fds.split_off(BIRTH_FDS) };
    let [channel, control] = <[OwnedFd; BIRTH_FDS]>::try_from(fds).map_err(|_| Errno::BADMSG)?;
    Ok(Some(Ordered { sizes, channel, control, entrances }))
}

/// The most descriptors that go beside a packet.
const BESIDE_MAX: usize = BIRTH_FDS + ENTRANCES_MAX;
const _: () = assert!(BESIDE_MAX >= ORDER_FDS_MAX);

fn send_beside(socket: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BESIDE_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    let parts = [IoSlice::new(packet)];
    let sent = rustix::io::retry_on_intr(|| sendmsg(&socket, &parts, &mut ancillary, SendFlags::NOSIGNAL))?;
    if sent == packet.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
}

/// One packet's length and descriptors.
fn receive_beside(socket: impl AsFd, packet: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BESIDE_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(packet)];
    let message = rustix::io::retry_on_intr(|| recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
    let fds = ancillary.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    let fds = fds.flatten().collect();
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok((message.bytes, fds))
}

/// Sends a report to the host.
pub(crate) fn send_report(fd: impl AsFd, report: Report) -> Result<(), Errno> {
    let packet = serde_json::to_vec(&report).map_err(|_| Errno::INVAL)?;
    send_packet(fd, &packet)
}

/// Sends a report with what holds a process.
pub(crate) fn send_held(fd: impl AsFd, report: Report, pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    let packet = serde_json::to_vec(&report).map_err(|_| Errno::INVAL)?;
    send_beside(fd, &packet, &[pidfd])
}

/// Receives a report with what came beside it; `None` when the guest program is gone.
pub(crate) fn receive_held(fd: impl AsFd) -> Result<Option<(Report, Vec<OwnedFd>)>, Errno> {
    let mut packet = [0; REPORT_BYTES_MAX];
    let (length, fds) = receive_beside(fd, &mut packet)?;
    match packet.get(..length) {
        Some([]) | None => Ok(None),
        Some(packet) => Ok(Some((serde_json::from_slice(packet).map_err(|_| Errno::BADMSG)?, fds))),
    }
}

/// Receives a report; `None` when the guest program is gone.
pub(crate) fn receive_report(fd: impl AsFd) -> Result<Option<Report>, Errno> {
    receive_packet(fd, REPORT_BYTES_MAX)?
        .map(|packet| serde_json::from_slice(&packet).map_err(|_| Errno::BADMSG))
        .transpose()
}

/// Lets the guest program go on.
pub(crate) fn send_go(fd: impl AsFd) -> Result<(), Errno> {
    send_packet(fd, GO)
}

/// Waits for the host's "go on"; `EPIPE` when the host is gone.
pub(crate) fn receive_go(fd: impl AsFd) -> Result<(), Errno> {
    match receive_packet(fd, GO.len())?.as_deref() {
        Some(GO) => Ok(()),
        Some(_) => Err(Errno::BADMSG),
        None => Err(Errno::PIPE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Step;

    #[test]
    fn reports_survive_the_way() {
        let (host, guest) = pair().expect("socket pair");
        let failed = Report::Failed(SetupError { step: Step::Overlay, errno: 22 });
        for report in
            [Report::UserNamespace, Report::Nursery, Report::ProcessOne(7), Report::Apart, Report::Sealed, failed]
        {
            send_report(&guest, report).expect("send");
            assert_eq!(receive_report(&host), Ok(Some(report)));
        }
        drop(guest);
        assert_eq!(receive_report(&host), Ok(None));
        assert_eq!(send_go(&host), Err(Errno::PIPE));
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let (host, guest) = pair().expect("socket pair");
        send_packet(&guest, b"{\"process_one\":").expect("send");
        assert_eq!(receive_report(&host), Err(Errno::BADMSG));
        send_packet(&guest, &[b' '; REPORT_BYTES_MAX + 1]).expect("send");
        assert_eq!(receive_report(&host), Err(Errno::MSGSIZE));
    }

    #[test]
    fn entrances_come_first_and_may_be_none() {
        let (host, guest) = pair().expect("socket pair");
        for count in [0, 1, ENTRANCES_MAX] {
            send_entrances(&host, &vec![host.as_fd(); count]).expect("send");
            assert_eq!(receive_entrances(&guest).expect("received").len(), count);
        }
        assert_eq!(send_entrances(&host, &[host.as_fd(); BESIDE_MAX + 9]), Err(Errno::INVAL));
        send_packet(&host, b"other").expect("send");
        assert_eq!(receive_entrances(&guest).map(drop), Err(Errno::BADMSG));
        send_packet(&host, b"longer").expect("send");
        assert_eq!(receive_entrances(&guest).map(drop), Err(Errno::MSGSIZE));
        drop(host);
        assert_eq!(receive_entrances(&guest).map(drop), Err(Errno::PIPE));
    }

    #[test]
    fn a_birth_is_whole_or_none() {
        let (host, nursery) = pair().expect("socket pair");
        let sizes = Sizes { disk_bytes_max: u64::MAX, shm_bytes_max: u64::MAX };
        for count in [0, 1, ENTRANCES_MAX] {
            send_birth(&host, &sizes, [host.as_fd(); 2], &vec![host.as_fd(); count]).expect("send");
            let ordered = receive_birth(&nursery).expect("received").expect("one");
            assert_eq!((ordered.sizes, ordered.entrances.len()), (sizes, count));
        }
        let packet = serde_json::to_vec(&sizes).expect("packet");
        for (packet, count) in [(&packet[..], 1), (&packet[..], 0), (b"{}", 2)] {
            send_beside(&host, packet, &vec![host.as_fd(); count]).expect("send");
            assert_eq!(receive_birth(&nursery).map(drop), Err(Errno::BADMSG));
        }
        drop(host);
        assert!(receive_birth(&nursery).expect("an end").is_none());
    }

    #[test]
    fn go_is_go_and_nothing_else() {
        let (host, guest) = pair().expect("socket pair");
        send_go(&host).expect("send");
        assert_eq!(receive_go(&guest), Ok(()));
        send_packet(&host, b"no").expect("send");
        assert_eq!(receive_go(&guest), Err(Errno::BADMSG));
        drop(host);
        assert_eq!(receive_go(&guest), Err(Errno::PIPE));
    }
}
