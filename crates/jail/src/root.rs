//! The container's file system: mounts made from inside its own user and mount namespaces.
//!
//! Whatever comes from outside is opened before the host's root is left; whatever is looked up in the image is looked
//! up after, without following links, so that no path in a hostile image can name anything of the host.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, chmodat, mkdirat, open, openat2, statat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_change, mount_remount,
    move_mount, open_tree, unmount,
};
use rustix::process::{chdir, pivot_root};

use crate::plan::{Directory, Symlink};

/// Handles taken outside and used inside.
#[derive(Debug, Default)]
pub(crate) struct Held {
    devices: Vec<(String, OwnedFd)>,
    proc: Option<OwnedFd>,
    /// Process 1's own `oom_score_adj`, by the host's `/proc`, which is out of reach afterwards.
    pub(crate) own_score: Option<OwnedFd>,
    /// The directory that takes what is written in the container.
    pub(crate) upper: Option<OwnedFd>,
}

const OWN_FILE_SYSTEM: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

pub(crate) fn private_mounts() -> Result<(), Errno> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// Device nodes cannot be made in a user namespace, only brought in as mounts.
pub(crate) fn hold_devices(names: &[String], held: &mut Held) -> Result<(), Errno> {
    for name in names {
        let path = Path::new("/dev").join(name);
        if FileType::from_raw_mode(rustix::fs::stat(&path)?.st_mode) != FileType::CharacterDevice {
            return Err(Errno::NODEV);
        }
        held.devices.push((name.clone(), clone_mount(&path)?));
    }
    Ok(())
}

/// A tmpfs over the image's own place, seen by this mount namespace alone: no other directory need exist.
pub(crate) fn writable_layer(rootfs: &Path, bytes_max: u64, inodes_max: u64) -> Result<OwnedFd, Errno> {
    let image = clone_mount(rootfs)?;
    let options = format!("mode=0700,size={bytes_max},nr_inodes={inodes_max}");
    mount("tmpfs", rootfs, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c_string(&options)?.as_c_str())?;
    chdir(rootfs)?;
    for name in ["image", "upper", "work", "root"] {
        mkdirat(CWD, name, Mode::from_raw_mode(0o755))?;
    }
    let place = open("image", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    attach(&image, &place)?;
    open("upper", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Relative names, so that no path of the host stands in the container's mount table.
pub(crate) fn overlay() -> Result<(), Errno> {
    mount(
        "overlay",
        "root",
        "overlay",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"lowerdir=image,upperdir=upper,workdir=work,userxattr",
    )
}

/// Made while the host's `/proc` is still in view: the kernel wants to see an unmasked one first. By that one, and never
/// again, process 1 opens a single file of its own for writing.
pub(crate) fn make_proc(held: &mut Held) -> Result<(), Errno> {
    held.own_score = Some(open("/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?);
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "proc")?;
    fsconfig_create(&context)?;
    held.proc =
        Some(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, OWN_FILE_SYSTEM | MountAttrFlags::MOUNT_ATTR_RDONLY)?);
    Ok(())
}

/// For runsc, which writes id maps there and mounts another one, which the kernel allows to whoever sees a whole one.
pub(crate) fn make_writable_proc(held: &mut Held) -> Result<(), Errno> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "proc")?;
    fsconfig_create(&context)?;
    held.proc = Some(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, OWN_FILE_SYSTEM)?);
    Ok(())
}

/// `pivot_root(".", ".")` stacks the old root on the new one, so no directory is needed to put it in; see `pivot_root(2)`.
pub(crate) fn change_root() -> Result<(), Errno> {
    chdir("root")?;
    change_root_to_layer()
}

/// The working directory is the top of the writable layer.
pub(crate) fn change_root_to_layer() -> Result<(), Errno> {
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

pub(crate) fn attach_proc(held: &mut Held) -> Result<(), Errno> {
    let proc = held.proc.take().ok_or(Errno::BADF)?;
    let place = make_directory(Path::new("/proc"))?;
    attach(&proc, &place)
}

/// A small tmpfs, read-only once filled (writing to a device is not writing to the file system).
pub(crate) fn dev(shm_bytes_max: u64, shm_inodes_max: u64, held: &mut Held) -> Result<(), Errno> {
    let place = make_directory(Path::new("/dev"))?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    attach(&tmpfs("64k", 64, "0755", flags)?, &place)?;
    for (name, device) in held.devices.drain(..) {
        let file = open(
            Path::new("/dev").join(name),
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o666),
        )?;
        attach(&device, &file)?;
    }
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        symlinkat(target, CWD, link)?;
    }
    let shm = make_directory(Path::new("/dev/shm"))?;
    attach(&tmpfs(&shm_bytes_max.to_string(), shm_inodes_max, "1777", OWN_FILE_SYSTEM)?, &shm)?;
    mount_remount("/dev", MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC, c"")
}

/// Files are covered by `/dev/null`, directories by one empty read-only tmpfs. Which of the two it is, the kernel says.
pub(crate) fn mask_proc(masks: &[String]) -> Result<(), Errno> {
    let null = || clone_mount(Path::new("/dev/null"));
    let proc = open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut empty: Option<&String> = None;
    let mut cover = null()?;
    for name in masks {
        match attach_below(&cover, &proc, name) {
            Ok(()) => cover = null()?,
            // This kernel does not have it.
            Err(Errno::NOENT) => {}
            // A file cannot cover a directory (`move_mount(2)`).
            Err(Errno::INVAL) => {
                let directory = match empty.replace(name) {
                    None => tmpfs("4k", 1, "0555", OWN_FILE_SYSTEM | MountAttrFlags::MOUNT_ATTR_RDONLY)?,
                    Some(before) => clone_mount(&Path::new("/proc").join(before))?,
                };
                attach_below(&directory, &proc, name)?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// In the writable layer, before the root file system is made of it: there it takes a fraction of the time. Where the image
/// has something else at such a place, a link for example, that is not seen.
pub(crate) fn directories(list: &[Directory], held: &Held) -> Result<(), Errno> {
    let upper = held.upper.as_ref().ok_or(Errno::BADF)?;
    for directory in list {
        let made = make_below(upper, &directory.path)?;
        chmodat(&made, ".", Mode::from_raw_mode(directory.mode), AtFlags::empty())?;
    }
    Ok(())
}

/// As [`directories`].
pub(crate) fn symlinks(list: &[Symlink], held: &Held) -> Result<(), Errno> {
    let upper = held.upper.as_ref().ok_or(Errno::BADF)?;
    for link in list {
        let name = link.path.file_name().ok_or(Errno::INVAL)?;
        let parent = make_below(upper, link.path.parent().ok_or(Errno::INVAL)?)?;
        symlinkat(&link.target, &parent, name)?;
    }
    Ok(())
}

/// Opens a directory of the new root, making what is missing of its path.
pub(crate) fn make_directory(path: &Path) -> Result<OwnedFd, Errno> {
    make_below(&open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?, path)
}

/// The same, of an absolute path as seen from `root`.
fn make_below(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let mut at = root.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    for component in path.components() {
        let name = match component {
            Component::RootDir => continue,
            Component::Normal(name) => name,
            Component::Prefix(_) | Component::CurDir | Component::ParentDir => {
                return Err(Errno::INVAL);
            }
        };
        match mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            // On a read-only directory the kernel says so even where the name exists.
            Err(Errno::ROFS) if statat(&at, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() => {}
            Err(errno) => return Err(errno),
        }
        at = openat2(
            &at,
            name,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )?;
    }
    Ok(at)
}

/// A detached copy of what is mounted at `path`, without what is mounted below it.
fn clone_mount(path: &Path) -> Result<OwnedFd, Errno> {
    open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

pub(crate) fn tmpfs(size: &str, inodes_max: u64, mode: &str, flags: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "tmpfs")?;
    fsconfig_set_string(context.as_fd(), "size", size)?;
    fsconfig_set_string(context.as_fd(), "nr_inodes", inodes_max.to_string())?;
    fsconfig_set_string(context.as_fd(), "mode", mode)?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// Attaches a detached mount at an open file or directory.
pub(crate) fn attach(detached: &OwnedFd, place: &OwnedFd) -> Result<(), Errno> {
    move_mount(
        detached,
        "",
        place,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

/// The same, at a name in an open directory; not through a link, if that is what it is.
fn attach_below(detached: &OwnedFd, directory: &OwnedFd, name: &str) -> Result<(), Errno> {
    move_mount(detached, "", directory, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn c_string(text: &str) -> Result<std::ffi::CString, Errno> {
    std::ffi::CString::new(text).map_err(|_| Errno::INVAL)
}
