//! A zygote's memory in large pages, so that its forks have less to copy.
//!
//! A fork copies the tables of all private pages. Where 512 pages are one large page it copies one entry. A child that writes
//! to such a page gets a small one of its own, as without.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::process::Pid;

use crate::raw::collapse;

/// Of a large page, on every architecture with pages of 4 KiB; where it is larger, the kernel does what it can.
const LARGE: usize = 2 << 20;

/// Has the kernel put a process's private memory into large pages, as far as it can at once (`madvise(2)`, MADV_COLLAPSE;
/// Linux 6.1), and tells how many there are. For a child that stands still: it takes a millisecond for each. Blocks.
///
/// # Errors
/// What `proc(5)` answers; `ENOSYS`, `EPERM` and the like where this kernel or its operator has it otherwise.
pub fn gather_pages(pid: Pid, pidfd: BorrowedFd<'_>) -> io::Result<usize> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", pid.as_raw_nonzero()))?;
    let mut gathered = 0;
    for (first, end) in maps.lines().filter_map(private_memory) {
        let large = (first.next_multiple_of(LARGE)..end).step_by(LARGE).filter(|place| end - place >= LARGE);
        for place in large {
            match collapse(pidfd, place, LARGE) {
                Ok(()) => gathered += 1,
                // Nothing there to gather, or no large page free; elsewhere there may be.
                Err(Errno::INVAL | Errno::AGAIN | Errno::NOMEM | Errno::BUSY) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(gathered)
}

/// A mapping of no file that is written to (proc_pid_maps(5)): its first address, and that behind its last.
fn private_memory(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    if permissions != "rw-p" || fields.nth(3).is_some_and(|name| name != "[heap]") {
        return None;
    }
    let (first, end) = range.split_once('-')?;
    Some((usize::from_str_radix(first, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_memory_that_is_written_to_is_gathered() {
        let cases = [
            ("7f0000000000-7f0000400000 rw-p 00000000 00:00 0 ", Some((0x7f00_0000_0000, 0x7f00_0040_0000))),
            ("01600000-01a00000 rw-p 00000000 00:00 0                  [heap]", Some((0x160_0000, 0x1a0_0000))),
            ("7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0          [stack]", None),
            ("7f0000000000-7f0000400000 r--p 00000000 00:00 0 ", None),
            ("7f0000000000-7f0000400000 rw-s 00000000 00:00 0 ", None),
            ("7f0000000000-7f0000400000 rw-p 00001000 fd:01 99 /usr/lib/libc.so.6", None),
            ("nonsense", None),
        ];
        for (line, expected) in cases {
            assert_eq!(private_memory(line), expected, "{line}");
        }
    }
}
