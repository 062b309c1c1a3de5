//! The test program as a zygote.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;

use belljar_jail::{SealPlan, ZYGOTE_CONTROL_FD, ZYGOTE_FILES, ZYGOTE_LIFELINE_FD, ZYGOTE_PID_NAMESPACE_FD, join};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::words::{Answer, Ask, Birth, PACKET_BYTES_MAX};
use crate::{failed, read, send, serve, write};

/// Namespaces and the new process's socket.
const FDS: usize = 8;

pub fn main() -> ExitCode {
    eprintln!("a zygote's word");
    // SAFETY: the jail has put them there for this program.
    let [control, pid_namespace, lifeline] =
        [ZYGOTE_CONTROL_FD, ZYGOTE_PID_NAMESPACE_FD, ZYGOTE_LIFELINE_FD].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: the kernel reaps the children then; nothing in this process waits for them.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let mut own = Some([pid_namespace, lifeline]);
    while let Some((ask, fds)) = receive(&control) {
        let answer = match ask {
            Ask::Fork { birth } => match fork_into(fds, birth) {
                Ok(Some(socket)) => {
                    drop((own.take(), control));
                    return serve(&socket, None);
                }
                Ok(None) => Answer::Value(0),
                Err(error) => failed(&error.into()),
            },
            Ask::Read { path } => read(&path),
            Ask::Write { path, bytes } => write(&path, bytes),
            Ask::List { path } => crate::list(&path),
            Ask::Call { number, arguments } => crate::call(number, &arguments),
            _ => Answer::Failed(libc::ENOSYS),
        };
        if !send(&control, &answer) {
            return ExitCode::from(72);
        }
    }
    ExitCode::SUCCESS
}

fn receive(control: &OwnedFd) -> Option<(Ask, Vec<OwnedFd>)> {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut packet)];
    let message = recvmsg(control, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
    let fds = ancillary.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    let fds = fds.flatten().collect();
    Some((serde_json::from_slice(packet.get(..message.bytes)?).ok()?, fds))
}

/// In the new process, which is a container's then: its socket.
fn fork_into(fds: Vec<OwnedFd>, birth: Birth) -> rustix::io::Result<Option<OwnedFd>> {
    let [user, mnt, pid, net, ipc, uts, cgroup, socket] =
        <[OwnedFd; FDS]>::try_from(fds).map_err(|_| rustix::io::Errno::BADMSG)?;
    if let Birth::Inside = birth {
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&pid), Some(LinkNameSpaceType::ProcessID))?;
    }
    // SAFETY: one thread, so the child may do whatever the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(rustix::io::Errno::AGAIN),
        0 => {
            let seal = std::fs::read(format!("{ZYGOTE_FILES}/seal")).ok();
            let seal = seal.and_then(|bytes| SealPlan::from_bytes(&bytes).ok()).ok_or(rustix::io::Errno::NODATA)?;
            let joined = join([user, mnt, pid, net, ipc, uts, cgroup], &seal);
            match joined {
                Ok(()) => {
                    send(&socket, &Answer::Value(0));
                    Ok(Some(socket))
                }
                Err(error) => {
                    send(&socket, &Answer::NotJoined(error.step.to_string(), error.errno));
                    std::process::exit(74)
                }
            }
        }
        _ => Ok(None),
    }
}
