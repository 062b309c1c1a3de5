//! Opening what a guest names by a path, where it cannot send a descriptor.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use belljar_jail::HandedFd;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// path_resolution(7): PATH_MAX with its NUL.
const PATH_BYTES_MAX: usize = 4095;

/// A container's root directory, as the host sees it; what is in it is hostile, and so are the paths.
#[derive(Debug, Clone)]
pub struct Below {
    root: Arc<OwnedFd>,
}

impl Below {
    pub fn new(root: OwnedFd) -> Self {
        Self { root: Arc::new(root) }
    }

    /// Keeps the directory for the program that this process is about to become.
    pub fn hand_over(&self) -> rustix::io::Result<HandedFd> {
        HandedFd::hand_over(&*self.root)
    }

    /// One that was handed over.
    pub fn take_over(handed: HandedFd) -> rustix::io::Result<Self> {
        Ok(Self::new(handed.take_over()?))
    }

    /// A descriptor as the guest would have sent it: of a directory with `O_PATH`, else for reading. What cannot be
    /// opened, because it is elsewhere or gone, is the null device, which is as good as anything else that is no file
    /// on a container's disk. `None` for what is no absolute path.
    pub fn open(&self, path: &[u8]) -> Option<rustix::io::Result<OwnedFd>> {
        let relative = path.strip_prefix(b"/").filter(|_| path.len() <= PATH_BYTES_MAX && !path.contains(&0))?;
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        let file = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let null = || openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        Some(match self.beneath(relative, directory) {
            Err(Errno::NOTDIR) => self.beneath(relative, file).or_else(|_| null()),
            Err(_) => null(),
            opened => opened,
        })
    }

    /// Never a link, another mount, or something made up by the kernel.
    fn beneath(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let path = if path.is_empty() { b"." } else { path };
        rustix::io::retry_on_intr(|| {
            openat2(&*self.root, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FileType, fstat};

    fn opened(below: &Below, path: &[u8]) -> Option<FileType> {
        let opened = below.open(path)?.expect("the null device is always there");
        Some(FileType::from_raw_mode(fstat(opened).expect("open").st_mode))
    }

    #[test]
    fn what_a_hostile_guest_may_name() {
        let root = tempfile::tempdir().expect("tempdir");
        let outside = tempfile::tempdir().expect("tempdir");
        std::fs::write(outside.path().join("secret"), "x").expect("write");
        std::fs::create_dir_all(root.path().join("files/output")).expect("mkdir");
        std::fs::write(root.path().join("files/a"), "x").expect("write");
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).expect("symlink");
        std::os::unix::fs::symlink("files/a", root.path().join("near")).expect("symlink");
        let fifo = root.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).expect("mkfifo");
        let directory = openat(CWD, root.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("open");
        let below = Below::new(directory);
        let up = format!("/../{}/secret", outside.path().file_name().expect("has one").display());
        let null = Some(FileType::CharacterDevice);
        let cases: [(&[u8], Option<FileType>); 13] = [
            (b"/files/output", Some(FileType::Directory)),
            (b"/files/a", Some(FileType::RegularFile)),
            (b"/", Some(FileType::Directory)),
            (b"/fifo", Some(FileType::Fifo)),
            (b"/files/a (deleted)", null),
            (b"/link/secret", null),
            (b"/near", null),
            (b"/..", null),
            (up.as_bytes(), null),
            (b"//etc/passwd", null),
            (b"files/a", None),
            (b"", None),
            (&[b'/'; 5000], None),
        ];
        for (path, kind) in cases {
            assert_eq!(opened(&below, path), kind, "{}", String::from_utf8_lossy(path));
        }
    }
}
