//! Hostile and odd sources: what each must do, exactly. Here is what the tests share.

mod layouts;
mod tarballs;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tar::{EntryType, Header};

use super::{UnpackLimits, unpack_tar};
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
                let name = path.strip_prefix(self.root()).expect("below").display().to_string();
                let mode = meta.permissions().mode() & 0o7777;
                lines.push(if meta.is_dir() {
                    pending.push(path);
                    format!("{name} d {mode:o}")
                } else if meta.is_symlink() {
                    format!("{name} l {}", fs::read_link(&path).expect("reads").display())
                } else {
                    format!("{name} f {mode:o} {}", fs::read_to_string(&path).expect("reads"))
                });
            }
        }
        lines.sort();
        lines
    }

    /// Nothing appeared or changed outside of the root.
    fn assert_outside_untouched(&self, case: &str) {
        let names: Vec<_> = fs::read_dir(self.outside()).expect("reads").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["canary"], "{case}");
        assert_eq!(fs::read_to_string(self.outside().join("canary")).expect("reads"), "alive", "{case}");
    }
}

fn problem_of(result: Result<u64, ImageError>, case: &str) -> ArchiveProblem {
    match result {
        Err(ImageError::BadArchive { problem, .. }) => problem,
        other => panic!("{case}: {other:?}"),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compresses");
    encoder.finish().expect("compresses")
}
