//! Hostile and odd sources, as tables: what each must do, exactly.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use super::{UnpackLimits, unpack_dir, unpack_oci, unpack_tar};
use crate::digest::Digest;
use crate::error::{ArchiveProblem, ImageError};
use crate::event::{Monitor, Phase};

/// An archive written byte by byte: the crate's builder refuses what is tested here.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: EntryType, name: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        let raw = header.as_ustar_mut().expect("a ustar header");
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", 0o755, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, b"")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, 0o644, b"")
    }

    fn pax_value(self, key: &str, value: &str) -> Self {
        let rest = format!(" {key}={value}\n").len();
        let digits = (rest + (rest + 3).to_string().len()).to_string().len();
        self.pax(&format!("{} {key}={value}\n", rest + digits))
    }

    fn pax(self, records: &str) -> Self {
        self.entry(EntryType::XHeader, "pax", "", 0o644, records.as_bytes())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// A directory with `root`, to be unpacked into, and `outside`, to be left alone.
struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        fs::create_dir(home.path().join("root")).expect("a directory");
        fs::create_dir(home.path().join("outside")).expect("a directory");
        fs::write(home.path().join("outside/canary"), "alive").expect("a file");
        Self { home }
    }

    fn root(&self) -> PathBuf {
        self.home.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.home.path().join("outside")
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.home.path().join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    fn unpack(&self, archive: &[u8], limits: UnpackLimits) -> Result<u64, ImageError> {
        let path = self.write("archive.tar", archive);
        let monitor = Monitor::silent();
        let mut meter = monitor.start(Phase::Unpack, None);
        unpack_tar(&path, &self.root(), limits, &monitor, &mut meter)
    }

    /// The tree as `name kind mode content-or-target`, sorted.
    fn tree(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut pending = vec![self.root()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir).expect("reads") {
                let path = entry.expect("reads").path();
                let meta = fs::symlink_metadata(&path).expect("reads");
                let name = path
                    .strip_prefix(self.root())
                    .expect("below")
                    .display()
                    .to_string();
                let mode = meta.permissions().mode() & 0o7777;
                lines.push(if meta.is_dir() {
                    pending.push(path);
                    format!("{name} d {mode:o}")
                } else if meta.is_symlink() {
                    format!(
                        "{name} l {}",
                        fs::read_link(&path).expect("reads").display()
                    )
                } else {
                    format!(
                        "{name} f {mode:o} {}",
                        fs::read_to_string(&path).expect("reads")
                    )
                });
            }
        }
        lines.sort();
        lines
    }

    /// Nothing appeared or changed outside of the root.
    fn assert_outside_untouched(&self, case: &str) {
        let names: Vec<_> = fs::read_dir(self.outside())
            .expect("reads")
            .flatten()
            .map(|e| e.file_name())
            .collect();
        assert_eq!(names, ["canary"], "{case}");
        assert_eq!(
            fs::read_to_string(self.outside().join("canary")).expect("reads"),
            "alive",
            "{case}"
        );
    }
}

fn problem_of(result: Result<u64, ImageError>, case: &str) -> ArchiveProblem {
    match result {
        Err(ImageError::BadArchive { problem, .. }) => problem,
        other => panic!("{case}: {other:?}"),
    }
}

#[test]
fn hostile_archives_are_refused() {
    let small = UnpackLimits {
        content_bytes_max: 100,
        entries_max: 4,
    };
    let long = "9".repeat(100);
    let deep = "d/".repeat(49);
    let cases: Vec<(&str, Tar, ArchiveProblem)> = vec![
        (
            "absolute",
            Tar::default().file("/etc/passwd", "x"),
            ArchiveProblem::AbsolutePath,
        ),
        (
            "parent",
            Tar::default().file("../outside/canary", "x"),
            ArchiveProblem::ParentPath,
        ),
        (
            "parent inside",
            Tar::default().file("a/../../outside/x", "x"),
            ArchiveProblem::ParentPath,
        ),
        (
            "parent directory",
            Tar::default().dir(".."),
            ArchiveProblem::ParentPath,
        ),
        (
            "pax path",
            Tar::default()
                .pax_value("path", "../outside/x")
                .file("x", "x"),
            ArchiveProblem::ParentPath,
        ),
        (
            "gnu name",
            Tar::default()
                .entry(EntryType::GNULongName, "l", "", 0, b"/etc/x\0")
                .file("x", "x"),
            ArchiveProblem::AbsolutePath,
        ),
        (
            "hard link out",
            Tar::default().hard_link("a", "../outside/canary"),
            ArchiveProblem::ParentPath,
        ),
        (
            "hard link absolute",
            Tar::default().hard_link("a", "/etc/passwd"),
            ArchiveProblem::AbsolutePath,
        ),
        (
            "hard link to nothing",
            Tar::default().hard_link("a", "b"),
            ArchiveProblem::BadHardLink("b".into()),
        ),
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
        (
            "empty link",
            Tar::default().symlink("a", ""),
            ArchiveProblem::BadName,
        ),
        (
            "file as root",
            Tar::default().file(".", "x"),
            ArchiveProblem::BadName,
        ),
        (
            "bytes",
            Tar::default()
                .file("a", &"x".repeat(60))
                .file("b", &"x".repeat(60)),
            ArchiveProblem::TooManyBytes(100),
        ),
        (
            "entries",
            Tar::default().dir("a").dir("b").dir("c").dir("d").dir("e"),
            ArchiveProblem::TooManyEntries(4),
        ),
        (
            "dropped entries count",
            (0..5).fold(Tar::default(), |tar, n| {
                tar.entry(EntryType::Fifo, &n.to_string(), "", 0, b"")
            }),
            ArchiveProblem::TooManyEntries(4),
        ),
        (
            "sparse",
            Tar::default().entry(EntryType::GNUSparse, "s", "", 0, b""),
            ArchiveProblem::UnsupportedEntry("tar type 'S'".into()),
        ),
        (
            "pax sparse",
            Tar::default()
                .pax_value("GNU.sparse.major", "1")
                .file("x", ""),
            ArchiveProblem::UnsupportedEntry("a sparse file".into()),
        ),
        (
            "pax size that the header contradicts",
            Tar::default().pax_value("size", "99").file("x", "y"),
            ArchiveProblem::UnsupportedEntry(
                "a size in the extension header that the header contradicts".into(),
            ),
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
            Tar::default()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", "x"),
            ArchiveProblem::Malformed("a loop of links is in its way".into()),
        ),
        (
            "a file as a directory",
            Tar::default().file("a", "x").file("a/b", "x"),
            ArchiveProblem::Malformed("a file is in its way".into()),
        ),
        (
            "no entries",
            Tar::default(),
            ArchiveProblem::Malformed("no entries".into()),
        ),
        (
            "too deep",
            Tar::default()
                .pax_value("path", &deep.repeat(5))
                .file("x", ""),
            ArchiveProblem::PathTooLong,
        ),
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
    let tar = Tar::default()
        .symlink("a", &outside)
        .file("a/canary", "dead");
    let problem = problem_of(
        place.unpack(&tar.end(), UnpackLimits::default()),
        "absolute",
    );
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
    place
        .unpack(&tar.end(), UnpackLimits::default())
        .expect("unpacks");
    place.assert_outside_untouched("relative");
    assert_eq!(
        place.tree(),
        [
            "a l ../../outside",
            "b f 644 mine",
            "outside d 755",
            "outside/canary f 644 dead"
        ]
    );
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
    assert_eq!(
        place
            .unpack(&tar, UnpackLimits::default())
            .expect("unpacks"),
        3
    );
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
    assert_eq!(
        fs::metadata(root.join("closed")).expect("reads").mtime(),
        1_000_000_000
    );
    assert_eq!(
        fs::metadata(root.join("twice")).expect("reads").mtime(),
        1_000_000_000
    );
}

#[test]
fn damaged_archives_are_refused() {
    let whole = Tar::default().file("a", &"x".repeat(5000)).end();
    let cut = whole[..3000].to_vec();
    let mut flipped = whole.clone();
    flipped[0] ^= 1;
    for (case, bytes) in [
        ("cut", cut),
        ("flipped", flipped),
        ("noise", vec![0x5a; 4096]),
    ] {
        let problem = problem_of(Place::new().unpack(&bytes, UnpackLimits::default()), case);
        assert!(
            matches!(problem, ArchiveProblem::Malformed(_)),
            "{case}: {problem:?}"
        );
    }
    for (case, head, name) in [
        ("bzip2", &b"BZh91AY"[..], "bzip2 compression"),
        ("xz", b"\xfd7zXZ\0", "xz compression"),
    ] {
        let problem = problem_of(Place::new().unpack(head, UnpackLimits::default()), case);
        assert_eq!(problem, ArchiveProblem::UnsupportedEntry(name.into()));
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compresses");
    encoder.finish().expect("compresses")
}

#[test]
fn compressed_archives_and_bombs() {
    let tar = Tar::default().file("a", "hello").end();
    for bytes in [
        gzip(&tar),
        zstd::encode_all(&tar[..], 1).expect("compresses"),
    ] {
        let place = Place::new();
        place
            .unpack(&bytes, UnpackLimits::default())
            .expect("unpacks");
        assert_eq!(place.tree(), ["a f 644 hello"]);
    }
    let bomb = gzip(
        &Tar::default()
            .entry(EntryType::Regular, "bomb", "", 0o644, &vec![0; 64 << 20])
            .end(),
    );
    assert!(bomb.len() < 1 << 20);
    let limits = UnpackLimits {
        content_bytes_max: 1 << 20,
        entries_max: 10,
    };
    let place = Place::new();
    assert_eq!(
        problem_of(place.unpack(&bomb, limits), "bomb"),
        ArchiveProblem::TooManyBytes(1 << 20)
    );
    assert!(
        fs::metadata(place.root().join("bomb"))
            .expect("reads")
            .len()
            <= 1 << 20
    );
    // The same in an extension header, which is not written anywhere but read into memory.
    let bomb = gzip(
        &Tar::default()
            .entry(EntryType::GNULongName, "l", "", 0, &vec![b'a'; 64 << 20])
            .end(),
    );
    let problem = problem_of(
        Place::new().unpack(&bomb, UnpackLimits::default()),
        "name bomb",
    );
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
    let result = unpack_tar(
        &path,
        &place.root(),
        UnpackLimits::default(),
        &monitor,
        &mut meter,
    );
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
    rustix::fs::mknodat(
        rustix::fs::CWD,
        source.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("a FIFO");
    let monitor = Monitor::silent();
    let mut meter = monitor.start(Phase::Unpack, None);
    let dropped = unpack_dir(
        &source,
        &place.root(),
        UnpackLimits::default(),
        &monitor,
        &mut meter,
    )
    .expect("copies");
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

/// An OCI layout with one image of these layers.
struct Layout {
    place: Place,
    dir: PathBuf,
}

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

impl Layout {
    fn new(layers: Vec<Vec<u8>>) -> Self {
        let place = Place::new();
        let dir = place.home.path().join("layout");
        fs::create_dir_all(dir.join("blobs/sha256")).expect("makes");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("writes");
        let layout = Self { place, dir };
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| layout.blob(LAYER_TYPE, &gzip(layer)))
            .collect();
        let manifest = serde_json::json!({"schemaVersion": 2, "layers": layers});
        layout.index(&[layout.blob(MANIFEST_TYPE, manifest.to_string().as_bytes())]);
        layout
    }

    fn blob(&self, media_type: &str, content: &[u8]) -> serde_json::Value {
        let digest = Digest::of(content);
        fs::write(self.blob_path(&digest), content).expect("writes");
        serde_json::json!({"mediaType": media_type, "digest": digest.to_string(), "size": content.len()})
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    fn index(&self, manifests: &[serde_json::Value]) {
        let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.dir.join("index.json"), index.to_string()).expect("writes");
    }

    fn unpack(&self) -> Result<(u64, Digest), ImageError> {
        let monitor = Monitor::silent();
        let mut meter = monitor.start(Phase::Unpack, None);
        unpack_oci(
            &self.dir,
            &self.place.root(),
            UnpackLimits::default(),
            &monitor,
            &mut meter,
        )
    }

    fn problem(&self, case: &str) -> ArchiveProblem {
        problem_of(self.unpack().map(|(dropped, _)| dropped), case)
    }
}

#[test]
fn oci_layers_hide_what_is_below() {
    let below = Tar::default()
        .file("kept", "1")
        .file("gone", "1")
        .file("dir/gone", "1")
        .file("opaque/gone", "1")
        .file("opaque/sub/gone", "1")
        .file("replaced", "1");
    // The opaque mark stands after a sibling of its own layer, which it must not hide.
    let above = Tar::default()
        .file(".wh.gone", "")
        .file("dir/.wh.gone", "")
        .file("opaque/new", "2")
        .file("opaque/.wh..wh..opq", "")
        .file("replaced", "2")
        .file("missing/.wh.nothing", "");
    let layout = Layout::new(vec![below.end(), above.end()]);
    let (dropped, _) = layout.unpack().expect("unpacks");
    assert_eq!(dropped, 0);
    assert_eq!(
        layout.place.tree(),
        [
            "dir d 755",
            "kept f 644 1",
            "opaque d 755",
            "opaque/new f 644 2",
            "replaced f 644 2"
        ]
    );
}

#[test]
fn oci_platforms_and_nested_indexes() {
    let layout = Layout::new(vec![]);
    let image = |text: &str| {
        let layer = layout.blob(LAYER_TYPE, &gzip(&Tar::default().file("which", text).end()));
        layout.blob(
            MANIFEST_TYPE,
            serde_json::json!({"layers": [layer]})
                .to_string()
                .as_bytes(),
        )
    };
    let platform = |mut descriptor: serde_json::Value, architecture: &str| {
        descriptor["platform"] = serde_json::json!({"architecture": architecture, "os": "linux"});
        descriptor
    };
    let list = serde_json::json!({"manifests": [platform(image("amd64"), "amd64"), platform(image("arm64"), "arm64")]});
    let nested = layout.blob(
        "application/vnd.oci.image.index.v1+json",
        list.to_string().as_bytes(),
    );
    let signature = layout.blob("application/vnd.example.signature", b"s");
    layout.index(&[nested, signature]);
    layout.unpack().expect("unpacks");
    assert_eq!(layout.place.tree(), ["which f 644 amd64"]);

    layout.index(&[image("one"), image("two")]);
    assert_eq!(layout.problem("two images"), ArchiveProblem::NotOneImage(2));
    layout.index(&[]);
    assert_eq!(layout.problem("no image"), ArchiveProblem::NotOneImage(0));
}

#[test]
fn hostile_oci_layouts_are_refused() {
    let layout = Layout::new(vec![Tar::default().file("../outside/canary", "x").end()]);
    assert_eq!(layout.problem("traversal"), ArchiveProblem::ParentPath);
    layout.place.assert_outside_untouched("traversal");

    for name in [".wh...", ".wh..", ".wh."] {
        let layout = Layout::new(vec![Tar::default().file(name, "").end()]);
        assert_eq!(layout.problem(name), ArchiveProblem::BadName, "{name}");
        layout.place.assert_outside_untouched(name);
    }

    let layout = Layout::new(vec![]);
    let mut blob = layout.blob(MANIFEST_TYPE, br#"{"layers":[]}"#);
    let expected: Digest = blob["digest"]
        .as_str()
        .expect("text")
        .parse()
        .expect("a digest");
    fs::write(layout.blob_path(&expected), br#"{"layers":{}}"#).expect("writes");
    layout.index(std::slice::from_ref(&blob));
    let found = Digest::of(br#"{"layers":{}}"#);
    assert_eq!(
        layout.problem("changed blob"),
        ArchiveProblem::DigestMismatch { expected, found }
    );
    blob["size"] = 3.into();
    layout.index(std::slice::from_ref(&blob));
    let text = "13 bytes where the descriptor says 3".to_owned();
    assert_eq!(
        layout.problem("wrong size"),
        ArchiveProblem::Malformed(text)
    );
    for digest in [
        "sha256:../../../outside/canary",
        "sha512:00",
        "",
        "../../outside/canary",
    ] {
        blob["digest"] = digest.into();
        layout.index(std::slice::from_ref(&blob));
        let expected = ArchiveProblem::UnsupportedEntry("not a sha256 digest".into());
        assert_eq!(layout.problem(digest), expected, "{digest}");
    }

    let layout = Layout::new(vec![]);
    let layer = layout.blob(
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        b"",
    );
    let manifest = serde_json::json!({"layers": [layer]}).to_string();
    layout.index(&[layout.blob(MANIFEST_TYPE, manifest.as_bytes())]);
    assert_eq!(
        layout.problem("media type"),
        ArchiveProblem::UnsupportedEntry("media type".into())
    );
}

#[test]
fn sources_are_told_apart() {
    use super::Source;
    let layout = Layout::new(vec![]);
    let tar = layout.place.write("a.tar", b"");
    assert_eq!(
        Source::detect(&layout.dir).expect("found"),
        Source::Oci(layout.dir.clone())
    );
    assert_eq!(
        Source::detect(&layout.place.root()).expect("found"),
        Source::Dir(layout.place.root())
    );
    assert_eq!(
        Source::detect(&tar).expect("found"),
        Source::Tar(tar.clone())
    );
    assert!(matches!(
        Source::detect(Path::new("/dev/null")),
        Err(ImageError::UnknownSource(_))
    ));
    assert!(matches!(
        Source::detect(&tar.with_extension("no")),
        Err(ImageError::Io { .. })
    ));
}
