//! Tar archives and directories.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use tar::EntryType;

use super::super::{UnpackLimits, unpack_dir, unpack_tar};
use super::{Place, Tar, gzip, problem_of};
use crate::error::{ArchiveProblem, ImageError};
use crate::event::{Monitor, Phase};

#[test]
fn hostile_archives_are_refused() {
    let small = UnpackLimits { content_bytes_max: 100, entries_max: 4 };
    let long = "9".repeat(100);
    let deep = "d/".repeat(49);
    let cases: Vec<(&str, Tar, ArchiveProblem)> = vec![
        ("absolute", Tar::default().file("/etc/passwd", "x"), ArchiveProblem::AbsolutePath),
        ("parent", Tar::default().file("../outside/canary", "x"), ArchiveProblem::ParentPath),
        ("parent inside", Tar::default().file("a/../../outside/x", "x"), ArchiveProblem::ParentPath),
        ("parent directory", Tar::default().dir(".."), ArchiveProblem::ParentPath),
        ("pax path", Tar::default().pax_value("path", "../outside/x").file("x", "x"), ArchiveProblem::ParentPath),
        (
            "gnu name",
            Tar::default().entry(EntryType::GNULongName, "l", "", 0, b"/etc/x\0").file("x", "x"),
            ArchiveProblem::AbsolutePath,
        ),
        ("hard link out", Tar::default().hard_link("a", "../outside/canary"), ArchiveProblem::ParentPath),
        ("hard link absolute", Tar::default().hard_link("a", "/etc/passwd"), ArchiveProblem::AbsolutePath),
        ("hard link to nothing", Tar::default().hard_link("a", "b"), ArchiveProblem::BadHardLink("b".into())),
        (
            "hard link to itself",
            Tar::default().file("a", "x").hard_link("a", "a"),
            ArchiveProblem::BadHardLink("a".into()),
        ),
        (
            "hard link to a directory",
            Tar::default().dir("d").hard_link("a", "d"),
            ArchiveProblem::BadHardLink("d".into()),
        ),
        ("empty link", Tar::default().symlink("a", ""), ArchiveProblem::BadName),
        ("file as root", Tar::default().file(".", "x"), ArchiveProblem::BadName),
        (
            "bytes",
            Tar::default().file("a", &"x".repeat(60)).file("b", &"x".repeat(60)),
            ArchiveProblem::TooManyBytes(100),
        ),
        ("entries", Tar::default().dir("a").dir("b").dir("c").dir("d").dir("e"), ArchiveProblem::TooManyEntries(4)),
        (
            "dropped entries count",
            (0..5).fold(Tar::default(), |tar, n| tar.entry(EntryType::Fifo, &n.to_string(), "", 0, b"")),
            ArchiveProblem::TooManyEntries(4),
        ),
        (
            "sparse",
            Tar::default().entry(EntryType::GNUSparse, "s", "", 0, b""),
            ArchiveProblem::UnsupportedEntry("tar type 'S'".into()),
        ),
        (
            "pax sparse",
            Tar::default().pax_value("GNU.sparse.major", "1").file("x", ""),
            ArchiveProblem::UnsupportedEntry("a sparse file".into()),
        ),
        (
            "pax size that the header contradicts",
            Tar::default().pax_value("size", "99").file("x", "y"),
            ArchiveProblem::UnsupportedEntry("a size in the extension header that the header contradicts".into()),
        ),
        (
            "pax length",
            Tar::default().pax("99 path=x\n").file("x", ""),
            ArchiveProblem::Malformed("not PAX records".into()),
        ),
        (
            "pax zero length",
            Tar::default().pax("0 path=x\n").file("x", ""),
            ArchiveProblem::Malformed("not PAX records".into()),
        ),
        (
            "pax huge length",
            Tar::default().pax(&format!("{long} a=b\n")).file("x", ""),
            ArchiveProblem::Malformed("not PAX records".into()),
        ),
        (
            "link loop",
            Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", "x"),
            ArchiveProblem::Malformed("a loop of links is in its way".into()),
        ),
        (
            "a file as a directory",
            Tar::default().file("a", "x").file("a/b", "x"),
            ArchiveProblem::Malformed("a file is in its way".into()),
        ),
        ("no entries", Tar::default(), ArchiveProblem::Malformed("no entries".into())),
        ("too deep", Tar::default().pax_value("path", &deep.repeat(5)).file("x", ""), ArchiveProblem::PathTooLong),
    ];
    for (case, tar, expected) in cases {
        let place = Place::new();
        let found = problem_of(place.unpack(&tar.end(), small), case);
        assert_eq!(found, expected, "{case}");
        place.assert_outside_untouched(case);
    }
}

#[test]
fn links_lead_only_inside_the_root() {
    let place = Place::new();
    let outside = place.outside().display().to_string();
    // Seen from inside the root, that path leads nowhere; `..` at the root leads to the root.
    let tar = Tar::default().symlink("a", &outside).file("a/canary", "dead");
    let problem = problem_of(place.unpack(&tar.end(), UnpackLimits::default()), "absolute");
    let expected = "a link to nowhere is in its way".to_owned();
    assert_eq!(problem, ArchiveProblem::Malformed(expected));
    place.assert_outside_untouched("absolute");

    let place = Place::new();
    let tar = Tar::default()
        .dir("outside")
        .symlink("a", "../../outside")
        .file("a/canary", "dead")
        .symlink("b", &format!("{outside}/canary"))
        .file("b", "mine");
    place.unpack(&tar.end(), UnpackLimits::default()).expect("unpacks");
    place.assert_outside_untouched("relative");
    assert_eq!(place.tree(), ["a l ../../outside", "b f 644 mine", "outside d 755", "outside/canary f 644 dead"]);
}

#[test]
fn odd_archives_unpack_safely() {
    let place = Place::new();
    let tar = Tar::default()
        .dir("./")
        .entry(EntryType::Directory, "closed/", "", 0o2555, b"")
        .file("closed/in", "in")
        .entry(EntryType::Regular, "suid", "", 0o6755, b"s")
        .entry(EntryType::Regular, "secret", "", 0o000, b"s")
        .file("twice", "first")
        .file("twice", "second")
        .dir("was-dir")
        .file("was-dir/x", "x")
        .file("was-dir", "now a file")
        .file("hard", "h")
        .hard_link("hard2", "./hard")
        .dir("lib")
        .symlink("usr", "lib")
        .file("usr/y", "y")
        .entry(EntryType::Char, "null", "", 0o666, b"")
        .entry(EntryType::Block, "sda", "", 0o666, b"")
        .entry(EntryType::Fifo, "fifo", "", 0o666, b"")
        .entry(EntryType::Directory, "tmp", "", 0o1777, b"")
        .pax_value("path", "n\u{e4}me")
        .file("x", "pax name")
        .end();
    assert_eq!(place.unpack(&tar, UnpackLimits::default()).expect("unpacks"), 3);
    assert_eq!(
        place.tree(),
        [
            "closed d 755",
            "closed/in f 644 in",
            "hard f 644 h",
            "hard2 f 644 h",
            "lib d 755",
            "lib/y f 644 y",
            "n\u{e4}me f 644 pax name",
            "secret f 400 s",
            "suid f 755 s",
            "tmp d 1777",
            "twice f 644 second",
            "usr l lib",
            "was-dir f 644 now a file",
        ]
    );
    let root = place.root();
    let inode = |name: &str| fs::metadata(root.join(name)).expect("reads").ino();
    assert_eq!(inode("hard"), inode("hard2"));
    assert_eq!(fs::metadata(root.join("closed")).expect("reads").mtime(), 1_000_000_000);
    assert_eq!(fs::metadata(root.join("twice")).expect("reads").mtime(), 1_000_000_000);
}

#[test]
fn damaged_archives_are_refused() {
    let whole = Tar::default().file("a", &"x".repeat(5000)).end();
    let cut = whole[..3000].to_vec();
    let mut flipped = whole.clone();
    flipped[0] ^= 1;
    for (case, bytes) in [("cut", cut), ("flipped", flipped), ("noise", vec![0x5a; 4096])] {
        let problem = problem_of(Place::new().unpack(&bytes, UnpackLimits::default()), case);
        assert!(matches!(problem, ArchiveProblem::Malformed(_)), "{case}: {problem:?}");
    }
    for (case, head, name) in [("bzip2", &b"BZh91AY"[..], "bzip2 compression"), ("xz", b"\xfd7zXZ\0", "xz compression")]
    {
        let problem = problem_of(Place::new().unpack(head, UnpackLimits::default()), case);
        assert_eq!(problem, ArchiveProblem::UnsupportedEntry(name.into()));
    }
}

#[test]
fn compressed_archives_and_bombs() {
    let tar = Tar::default().file("a", "hello").end();
    for bytes in [gzip(&tar), zstd::encode_all(&tar[..], 1).expect("compresses")] {
        let place = Place::new();
        place.unpack(&bytes, UnpackLimits::default()).expect("unpacks");
        assert_eq!(place.tree(), ["a f 644 hello"]);
    }
    let bomb = gzip(&Tar::default().entry(EntryType::Regular, "bomb", "", 0o644, &vec![0; 64 << 20]).end());
    assert!(bomb.len() < 1 << 20);
    let limits = UnpackLimits { content_bytes_max: 1 << 20, entries_max: 10 };
    let place = Place::new();
    assert_eq!(problem_of(place.unpack(&bomb, limits), "bomb"), ArchiveProblem::TooManyBytes(1 << 20));
    assert!(fs::metadata(place.root().join("bomb")).expect("reads").len() <= 1 << 20);
    // The same in an extension header, which is not written anywhere but read into memory.
    let bomb = gzip(&Tar::default().entry(EntryType::GNULongName, "l", "", 0, &vec![b'a'; 64 << 20]).end());
    let problem = problem_of(Place::new().unpack(&bomb, UnpackLimits::default()), "name bomb");
    assert_eq!(problem, ArchiveProblem::Malformed("too big".into()));
}

#[test]
fn a_cancelled_unpacking_ends() {
    let cancel = tokio_util::sync::CancellationToken::new();
    cancel.cancel();
    let monitor = Monitor::new(|_| {}, cancel);
    let mut meter = monitor.start(Phase::Unpack, None);
    let place = Place::new();
    let path = place.write("a.tar", &Tar::default().file("a", "x").end());
    let result = unpack_tar(&path, &place.root(), UnpackLimits::default(), &monitor, &mut meter);
    assert!(matches!(result, Err(ImageError::Interrupted)), "{result:?}");
}

#[test]
fn directories_are_copied_without_their_devices_and_rights() {
    let place = Place::new();
    let source = place.home.path().join("source");
    fs::create_dir_all(source.join("sub/deeper")).expect("makes");
    fs::write(source.join("sub/deeper/file"), "deep").expect("writes");
    fs::write(source.join("suid"), "s").expect("writes");
    fs::set_permissions(source.join("suid"), fs::Permissions::from_mode(0o4755)).expect("a mode");
    fs::hard_link(source.join("suid"), source.join("sub/twin")).expect("links");
    std::os::unix::fs::symlink("/etc/passwd", source.join("link")).expect("links");
    rustix::fs::mknodat(rustix::fs::CWD, source.join("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .expect("a FIFO");
    let monitor = Monitor::silent();
    let mut meter = monitor.start(Phase::Unpack, None);
    let dropped = unpack_dir(&source, &place.root(), UnpackLimits::default(), &monitor, &mut meter).expect("copies");
    assert_eq!(dropped, 1);
    assert_eq!(
        place.tree(),
        [
            "link l /etc/passwd",
            "sub d 755",
            "sub/deeper d 755",
            "sub/deeper/file f 644 deep",
            "sub/twin f 755 s",
            "suid f 755 s"
        ]
    );
    let inode = |name: &str| fs::metadata(place.root().join(name)).expect("reads").ino();
    assert_eq!(inode("suid"), inode("sub/twin"));
}
