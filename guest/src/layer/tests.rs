//! Layers written from one folder and applied to another.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags, mknodat, open, setxattr};

use super::*;

fn directory(path: &Path) -> std::os::fd::OwnedFd {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("directory")
}

fn packed(upper: &Path) -> Vec<u8> {
    let mut layer = Vec::new();
    pack(std::os::fd::AsFd::as_fd(&directory(upper)), &mut layer, MOUNT_POINTS).expect("packed");
    layer
}

fn applied(layer: &[u8], root: &Path) -> Result<Summary, Failure> {
    unpack(std::os::fd::AsFd::as_fd(&directory(root)), layer)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").permissions().mode() & 0o7777
}

#[test]
fn what_was_written_comes_back() {
    let upper = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| upper.path().join(name);
    fs::create_dir_all(at("work/deep/er")).expect("mkdir");
    fs::write(at("work/a.txt"), "hello").expect("write");
    fs::write(at("work/deep/er/\u{e9}\n.bin"), [0_u8; 10_000]).expect("write");
    fs::hard_link(at("work/a.txt"), at("work/deep/b.txt")).expect("link");
    symlink("../nowhere", at("work/link")).expect("symlink");
    mknodat(CWD, at("work/fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).expect("mkfifo");
    fs::set_permissions(at("work/a.txt"), fs::Permissions::from_mode(0o4751)).expect("chmod");
    setxattr(at("work/a.txt"), "user.note", b"a=b\n", XattrFlags::empty()).expect("xattr");
    let long = "d".repeat(200);
    fs::create_dir_all(at(&format!("{long}/{long}/{long}"))).expect("mkdir");
    fs::write(at(&format!("{long}/{long}/{long}/x")), "far").expect("write");
    fs::set_permissions(at("work/deep"), fs::Permissions::from_mode(0o500)).expect("chmod");

    let root = tempfile::tempdir().expect("tempdir");
    let back = |name: &str| root.path().join(name);
    let summary = applied(&packed(upper.path()), root.path()).expect("applied");
    assert_eq!(summary.entries, 12);
    assert_eq!(fs::read(back("work/a.txt")).expect("there"), b"hello");
    assert_eq!(mode(&back("work/a.txt")), 0o4751);
    assert_eq!(mode(&back("work/deep")), 0o500);
    assert_eq!(mode(&back("work/fifo")), 0o640);
    assert_eq!(fs::read_link(back("work/link")).expect("a link"), Path::new("../nowhere"));
    let (one, other) = (back("work/a.txt"), back("work/deep/b.txt"));
    assert_eq!(fs::metadata(&one).expect("there").ino(), fs::metadata(other).expect("there").ino());
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(&one, "user.note", &mut value[..]).expect("kept");
    assert_eq!(&value[..length], b"a=b\n");
    for name in ["work/a.txt", "work/link", "work/deep", "work"] {
        let (then, now) = (fs::symlink_metadata(at(name)), fs::symlink_metadata(back(name)));
        let (then, now) = (then.expect("there"), now.expect("there"));
        assert_eq!((then.mtime(), then.mtime_nsec()), (now.mtime(), now.mtime_nsec()), "{name}");
    }
    let zeros = fs::metadata(back("work/deep/er/\u{e9}\n.bin")).expect("there");
    assert_eq!((zeros.len(), zeros.blocks()), (10_000, 0), "zeros take no room");
    assert_eq!(fs::read(back(&format!("{long}/{long}/{long}/x"))).expect("there"), b"far");
}

#[test]
fn what_was_removed_is_removed_again() {
    let upper = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| upper.path().join(name);
    fs::create_dir_all(at("etc/replaced")).expect("mkdir");
    for name in ["etc/file", "etc/tree"] {
        mknodat(CWD, at(name), FileType::CharacterDevice, Mode::empty(), 0).expect("a whiteout");
    }
    fs::write(at("etc/replaced/new"), "new").expect("write");
    setxattr(at("etc/replaced"), OPAQUE_XATTR, b"y", XattrFlags::empty()).expect("xattr");

    let root = tempfile::tempdir().expect("tempdir");
    let image = |name: &str| root.path().join(name);
    fs::create_dir_all(image("etc/tree/of/things")).expect("mkdir");
    fs::create_dir_all(image("etc/replaced")).expect("mkdir");
    for name in ["etc/file", "etc/kept", "etc/tree/of/things/x", "etc/replaced/old"] {
        fs::write(image(name), "image").expect("write");
    }
    applied(&packed(upper.path()), root.path()).expect("applied");
    let mut left: Vec<_> = fs::read_dir(image("etc")).expect("list").map(|e| e.expect("entry").file_name()).collect();
    left.sort();
    assert_eq!(left, ["kept", "replaced"]);
    let inside: Vec<_> =
        fs::read_dir(image("etc/replaced")).expect("list").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(inside, ["new"]);
}

#[test]
fn a_layer_that_ends_early_is_no_layer() {
    let upper = tempfile::tempdir().expect("tempdir");
    fs::write(upper.path().join("a"), vec![b'x'; 5000]).expect("write");
    let layer = packed(upper.path());
    let content = 5000 - 512;
    let root = tempfile::tempdir().expect("tempdir");
    assert!(applied(&layer[..layer.len() - 1024 - content], root.path()).is_err());
}

/// A layer of one entry, made by hand: `tar` itself would refuse to write it.
fn forged(kind: tar::EntryType, path: &[u8], link: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(0);
    header.set_cksum();
    [header.as_bytes().as_slice(), &[0; 1024]].concat()
}

#[test]
fn nothing_is_written_outside_the_root() {
    use tar::EntryType::{Block, Directory, Link, Regular};
    let place = tempfile::tempdir().expect("tempdir");
    let root = place.path().join("root");
    fs::create_dir(&root).expect("mkdir");
    fs::write(place.path().join("precious"), "x").expect("write");
    symlink("..", root.join("up")).expect("symlink");
    let cases: [(tar::EntryType, &[u8], &[u8]); 8] = [
        (Regular, b"../precious", b""),
        (Regular, b"/precious", b""),
        (Regular, b"up/precious", b""),
        (Regular, b"a/../../precious", b""),
        (Regular, b".wh...", b""),
        (Regular, b"up/.wh.precious", b""),
        (Link, b"mine", b"../precious"),
        (Block, b"disk", b""),
    ];
    for (kind, path, link) in cases {
        assert!(applied(&forged(kind, path, link), &root).is_err(), "{}", String::from_utf8_lossy(path));
    }
    // Over a link, not through it.
    applied(&forged(Directory, b"up", b""), &root).expect("a directory in the link's place");
    assert_eq!(fs::read(place.path().join("precious")).expect("kept"), b"x");
    let mut left: Vec<_> = fs::read_dir(&root).expect("list").map(|e| e.expect("entry").file_name()).collect();
    left.sort();
    assert_eq!(left, ["up"]);
}

#[test]
fn files_that_are_closed_to_their_owner_are_kept_closed() {
    let upper = tempfile::tempdir().expect("tempdir");
    let secret = upper.path().join("locked/secret");
    fs::create_dir(upper.path().join("locked")).expect("mkdir");
    fs::write(&secret, "s").expect("write");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o0)).expect("chmod");
    fs::set_permissions(upper.path().join("locked"), fs::Permissions::from_mode(0o0)).expect("chmod");
    let root = tempfile::tempdir().expect("tempdir");
    applied(&packed(upper.path()), root.path()).expect("applied");
    assert_eq!(mode(&upper.path().join("locked")), 0);
    assert_eq!(mode(&root.path().join("locked")), 0);
    fs::set_permissions(root.path().join("locked"), fs::Permissions::from_mode(0o700)).expect("chmod");
    fs::set_permissions(upper.path().join("locked"), fs::Permissions::from_mode(0o700)).expect("chmod");
    assert_eq!((mode(&secret), mode(&root.path().join("locked/secret"))), (0, 0));
}
