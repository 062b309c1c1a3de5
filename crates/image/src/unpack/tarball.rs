//! Tar archives, plain, gzip or zstd: read entry by entry, extension headers with a cap.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, Entry, EntryType, Header};

use super::entry::EntryPath;
use super::writer::{Meta, TreeWriter};
use super::{UnpackLimits, bad};
use crate::digest::Digest;
use crate::error::{ArchiveProblem, Doing, ImageError};
use crate::event::{Meter, Monitor};

/// A long name or a set of PAX records may have this many bytes.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// Unpacks the archive at `archive` into the empty directory `root`. Gives how many entries were left out.
pub(crate) fn unpack_tar(
    archive: &Path,
    root: &Path,
    limits: UnpackLimits,
    monitor: &Monitor,
    meter: &mut Meter,
) -> Result<u64, ImageError> {
    let mut writer = TreeWriter::new(root, archive, limits, monitor, meter)?;
    let mut entries = 0_u64;
    for_each_entry(archive, limits, monitor, |item| {
        entries += 1;
        write_item(&mut writer, archive, item)
    })?;
    if entries == 0 {
        return Err(bad(archive, b"", ArchiveProblem::Malformed("no entries".into())));
    }
    writer.finish()
}

/// Digest of the archive file itself.
pub(crate) fn digest_of(archive: &Path, monitor: &Monitor) -> Result<Digest, ImageError> {
    let file = File::open(archive).doing("opening", archive)?;
    Digest::of_reader(file, archive, |_| monitor.go_on())
}

/// An entry with everything that extension headers say about it.
pub(crate) struct Item<'a> {
    pub(crate) path: EntryPath,
    kind: EntryType,
    meta: Meta,
    link: Vec<u8>,
    content: &'a mut dyn Read,
}

/// Opens an archive, whatever its compression.
fn open(archive: &Path) -> Result<Box<dyn Read>, ImageError> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(archive).doing("opening", archive)?);
    let head = file.fill_buf().doing("reading", archive)?;
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(file).doing("reading", archive)?),
        [b'B', b'Z', b'h', ..] => return Err(unsupported(archive, b"", "bzip2 compression")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            return Err(unsupported(archive, b"", "xz compression"));
        }
        _ => Box::new(file),
    })
}

fn unsupported(archive: &Path, entry: &[u8], what: &str) -> ImageError {
    bad(archive, entry, ArchiveProblem::UnsupportedEntry(what.into()))
}

/// An archive's bytes once decompressed: no more of them than an archive within the limits can have, and none after a
/// cancellation. Entries that are only skipped are held to it too.
struct Bounded<'a> {
    inner: Box<dyn Read>,
    left: u64,
    monitor: &'a Monitor,
}

impl<'a> Bounded<'a> {
    /// Header, padding and extension headers of one entry, generously.
    const ENTRY_OVERHEAD_BYTES: u64 = 4096;

    fn new(inner: Box<dyn Read>, limits: UnpackLimits, monitor: &'a Monitor) -> Self {
        let overhead = limits.entries_max.saturating_mul(Self::ENTRY_OVERHEAD_BYTES).saturating_add(1 << 20);
        Self { inner, left: limits.content_bytes_max.saturating_add(overhead), monitor }
    }
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.monitor.go_on().is_err() {
            return Err(std::io::Error::other("interrupted"));
        }
        let count = self.inner.read(buffer)?;
        self.left =
            self.left.checked_sub(count as u64).ok_or_else(|| std::io::Error::other("unpacks to too many bytes"))?;
        Ok(count)
    }
}

/// Calls `action` with each entry that stands for something in the tree.
pub(crate) fn for_each_entry(
    archive: &Path,
    limits: UnpackLimits,
    monitor: &Monitor,
    mut action: impl FnMut(Item<'_>) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let malformed = |error: std::io::Error| match monitor.go_on() {
        Ok(()) => bad(archive, b"", ArchiveProblem::Malformed(error.to_string())),
        Err(interrupted) => interrupted,
    };
    let mut tar = Archive::new(Bounded::new(open(archive)?, limits, monitor));
    let mut extensions = Extensions::default();
    // Raw: the crate would read extension headers of any size into memory.
    for entry in tar.entries().map_err(malformed)?.raw(true) {
        let mut entry = entry.map_err(malformed)?;
        if extensions.take_header(&mut entry, archive)? {
            continue;
        }
        let Extensions { path, link, size } = std::mem::take(&mut extensions);
        let name = path.unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = EntryPath::parse(&name).map_err(|problem| bad(archive, &name, problem))?;
        let header = entry.header();
        let kind = match header.entry_type() {
            // How archives from before POSIX spell a directory.
            EntryType::Regular if name.ends_with(b"/") => EntryType::Directory,
            kind => kind,
        };
        let meta = meta_of(header).map_err(malformed)?;
        if size.is_some_and(|size| size != entry.size()) {
            return Err(unsupported(archive, &name, "a size in the extension header that the header contradicts"));
        }
        let link = link.or_else(|| entry.link_name_bytes().map(|name| name.into_owned())).unwrap_or_default();
        action(Item { path, kind, meta, link, content: &mut entry })?;
    }
    Ok(())
}

/// Writes one entry.
pub(crate) fn write_item(writer: &mut TreeWriter<'_>, archive: &Path, item: Item<'_>) -> Result<(), ImageError> {
    let Item { path, kind, meta, link, content } = item;
    match kind {
        EntryType::Regular | EntryType::Continuous => writer.file(&path, meta, content),
        EntryType::Directory => writer.dir(&path, meta),
        EntryType::Symlink => writer.symlink(&path, meta, &link),
        EntryType::Link => {
            let target = EntryPath::parse(&link).map_err(|problem| bad(archive, path.as_bytes(), problem))?;
            writer.hard_link(&path, &target)
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => writer.drop_special(&path),
        other => Err(unsupported(archive, path.as_bytes(), &format!("tar type {:?}", char::from(other.as_byte())))),
    }
}

fn meta_of(header: &Header) -> std::io::Result<Meta> {
    let modified_s = i64::try_from(header.mtime()?).unwrap_or(0);
    Ok(Meta { mode: header.mode()?, modified_s })
}

/// What extension headers say about the entry after them.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Extensions {
    /// Takes the entry if it is an extension header.
    fn take_header<R: Read>(&mut self, entry: &mut Entry<'_, R>, archive: &Path) -> Result<bool, ImageError> {
        let kind = entry.header().entry_type();
        if !matches!(
            kind,
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
        ) {
            return Ok(false);
        }
        let malformed = |text: &str| bad(archive, b"extension header", ArchiveProblem::Malformed(text.into()));
        if entry.size() > EXTENSION_BYTES_MAX {
            return Err(malformed("too big"));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(|error| malformed(&error.to_string()))?;
        match kind {
            EntryType::GNULongName => self.path = Some(without_nul(content)),
            EntryType::GNULongLink => self.link = Some(without_nul(content)),
            EntryType::XHeader => self.take_pax(&content, archive)?,
            // Defaults for all entries: comments in practice (git archive). None of them names an entry.
            _ => {}
        }
        Ok(true)
    }

    /// Records of the form `<length> <key>=<value>\n`, where the length counts all of it (POSIX pax).
    fn take_pax(&mut self, mut records: &[u8], archive: &Path) -> Result<(), ImageError> {
        let malformed = || bad(archive, b"extension header", ArchiveProblem::Malformed("not PAX records".into()));
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length = std::str::from_utf8(&records[..space]).ok().and_then(|text| text.parse::<usize>().ok());
            let length =
                length.filter(|length| *length > space + 1 && *length <= records.len()).ok_or_else(malformed)?;
            let (record, rest) = records.split_at(length);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    self.size = Some(size.ok_or_else(malformed)?);
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(unsupported(archive, b"", "a sparse file"));
                }
                _ => {}
            }
            records = rest;
        }
        Ok(())
    }
}

fn without_nul(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}
