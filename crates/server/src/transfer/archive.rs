//! Reading a tar stream that anybody may have written, and writing it again.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, Entries, Entry, EntryType, Header, PaxExtensions};

use crate::transfer::manifest::{Kind, Line};

/// The longest path: what path_resolution(7) lets a program name in one call.
const PATH_BYTES_MAX: usize = 4095;
/// The most that records may say about one entry: a file's extended attributes, in base64.
const RECORDS_BYTES_MAX: u64 = 1024 * 1024;
/// Entries of one archive; more than a container's disk has room for.
const ENTRIES_MAX: u64 = 4_000_000;
/// Records that are passed on; what others say is of no use inside the wall.
const RECORD_MTIME: &str = "mtime";
const RECORD_XATTR: &str = "LIBARCHIVE.xattr.user.";

/// Why an archive is not taken. The text names the entry, or the field of the manifest.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It says what no export says.
    #[error("{0}")]
    Refused(String),
    /// It could not be read to its end, or the other stream not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A refusal that names an entry.
pub fn refused(path: &[u8], why: impl std::fmt::Display) -> ArchiveError {
    let shown = String::from_utf8_lossy(path);
    ArchiveError::Refused(format!("{}: {why}", belljar_wire::read::Brief(&shown)))
}

/// One entry but its content.
#[derive(Debug)]
pub struct Member {
    /// Its kind.
    pub kind: Kind,
    /// Its path, relative, without `.` and `..`.
    pub path: Vec<u8>,
    /// What a link leads to; of a hard link, a path like any other.
    pub target: Option<Vec<u8>>,
    /// Permission bits.
    pub mode: u32,
    /// Bytes of its content.
    pub size: u64,
    mtime: u64,
    records: Vec<(String, Vec<u8>)>,
}

/// The entries of a tar stream, one after another.
pub struct Members<'a, R: Read> {
    entries: Entries<'a, R>,
    seen: u64,
}

impl<'a, R: Read> Members<'a, R> {
    /// Begins to read.
    pub fn new(archive: &'a mut Archive<R>) -> io::Result<Self> {
        Ok(Self { entries: archive.entries()?.raw(true), seen: 0 })
    }

    /// The next entry with its content, which must be read before the next one is asked for.
    pub fn next(&mut self) -> Result<Option<(Member, Entry<'a, R>)>, ArchiveError> {
        let (mut records, mut path, mut target) = (Vec::new(), None, None);
        for entry in self.entries.by_ref() {
            let mut entry = entry?;
            self.seen += 1;
            if self.seen > ENTRIES_MAX {
                return Err(ArchiveError::Refused(format!("more than {ENTRIES_MAX} entries")));
            }
            match entry.header().entry_type() {
                EntryType::XHeader => records = read_records(&mut entry)?,
                EntryType::GNULongName => path = Some(read_name(&mut entry)?),
                EntryType::GNULongLink => target = Some(read_name(&mut entry)?),
                kind => {
                    let path = path.take().unwrap_or_else(|| entry.path_bytes().into_owned());
                    let target = target.take().or_else(|| entry.link_name_bytes().map(|name| name.into_owned()));
                    let member = Member::read(entry.header(), kind, path, target, records)?;
                    return Ok(Some((member, entry)));
                }
            }
        }
        match path.is_none() && target.is_none() && records.is_empty() {
            true => Ok(None),
            false => Err(ArchiveError::Refused("the archive ends behind the head of an entry".to_owned())),
        }
    }
}

fn read_small(entry: &mut impl Read, size: u64, bytes_max: u64) -> Result<Vec<u8>, ArchiveError> {
    if size > bytes_max {
        return Err(ArchiveError::Refused(format!("an entry's head has {size} bytes, and may have {bytes_max}")));
    }
    let mut bytes = Vec::new();
    entry.take(size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size {
        return Err(ArchiveError::Refused("the archive ends within the head of an entry".to_owned()));
    }
    Ok(bytes)
}

fn read_name<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, ArchiveError> {
    let size = entry.size();
    let mut name = read_small(entry, size, PATH_BYTES_MAX as u64 + 1 + crate::transfer::FILES.len() as u64)?;
    if name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

fn read_records<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
    let size = entry.size();
    let bytes = read_small(entry, size, RECORDS_BYTES_MAX)?;
    let mut records = Vec::new();
    for record in PaxExtensions::new(&bytes) {
        let record = record?;
        let key = String::from_utf8_lossy(record.key_bytes()).into_owned();
        // These would say another name, link or size than the header does.
        if matches!(key.as_str(), "path" | "linkpath" | "size") || key.starts_with("GNU.sparse") {
            return Err(ArchiveError::Refused(format!("a record \"{key}\": names and sizes stand in headers here")));
        }
        if key == RECORD_MTIME || key.starts_with(RECORD_XATTR) {
            records.push((key, record.value_bytes().to_vec()));
        }
    }
    Ok(records)
}

/// A path that can lead nowhere but down.
pub fn check_path(path: &[u8]) -> Result<(), ArchiveError> {
    if path.is_empty() || path.len() > PATH_BYTES_MAX + crate::transfer::FILES.len() {
        return Err(refused(path, format!("a path has 1 to {PATH_BYTES_MAX} bytes")));
    }
    if path.starts_with(b"/") {
        return Err(refused(path, "a path is relative"));
    }
    let strays = |name: &[u8]| name.is_empty() || name == b"." || name == b".." || name.contains(&0);
    match path.split(|&byte| byte == b'/').any(strays) {
        true => Err(refused(path, "a path has no empty names, no \".\" and no \"..\"")),
        false => Ok(()),
    }
}

impl Member {
    fn read(
        header: &Header,
        kind: EntryType,
        mut path: Vec<u8>,
        target: Option<Vec<u8>>,
        records: Vec<(String, Vec<u8>)>,
    ) -> Result<Self, ArchiveError> {
        let kind = match kind {
            EntryType::Regular => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::Hardlink,
            EntryType::Fifo => Kind::Fifo,
            other => {
                return Err(refused(&path, format!("entries of type {:?} are not taken", char::from(other.as_byte()))));
            }
        };
        if kind == Kind::Directory && path.last() == Some(&b'/') {
            path.pop();
        }
        check_path(&path)?;
        let target = match kind {
            Kind::Symlink | Kind::Hardlink => Some(
                target.filter(|target| !target.is_empty()).ok_or_else(|| refused(&path, "a link leads somewhere"))?,
            ),
            Kind::File | Kind::Directory | Kind::Fifo => None,
        };
        if let (Kind::Hardlink, Some(target)) = (kind, &target) {
            check_path(target).map_err(|error| refused(&path, format!("its link leads outward: {error}")))?;
        }
        let size = header.entry_size()?;
        if kind != Kind::File && size != 0 {
            return Err(refused(&path, "only files have content"));
        }
        Ok(Self { kind, path, target, mode: header.mode()? & 0o7777, size, mtime: header.mtime()?, records })
    }

    /// The same entry, leading elsewhere.
    #[must_use]
    pub fn leading_to(self, target: Option<Vec<u8>>) -> Self {
        Self { target, ..self }
    }

    /// Writes the entry again, under another path and target, and answers its line of the manifest. Its name there is `line_path`.
    pub fn write<W: Write>(
        &self,
        builder: &mut Builder<W>,
        path: &[u8],
        target: Option<&[u8]>,
        content: impl Read,
        line_path: &[u8],
    ) -> Result<Line, ArchiveError> {
        let records = self.records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        builder.append_pax_extensions(records)?;
        let mut header = Header::new_gnu();
        header.set_entry_type(match self.kind {
            Kind::File => EntryType::Regular,
            Kind::Directory => EntryType::Directory,
            Kind::Symlink => EntryType::Symlink,
            Kind::Hardlink => EntryType::Link,
            Kind::Fifo => EntryType::Fifo,
        });
        header.set_mode(self.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.mtime);
        header.set_size(self.size);
        let mut content = Hashed { source: content, hasher: Sha256::new(), bytes: 0 };
        let name = Path::new(OsStr::from_bytes(path));
        match target {
            Some(target) => builder.append_link(&mut header, name, OsStr::from_bytes(target))?,
            None => builder.append_data(&mut header, name, io::BufReader::with_capacity(64 * 1024, &mut content))?,
        }
        if content.bytes != self.size {
            return Err(refused(path, "the archive ends within it"));
        }
        let digest = (self.kind == Kind::File).then(|| content.hasher.finalize().into());
        Ok(Line::of(self, line_path, digest))
    }
}

struct Hashed<R> {
    source: R,
    hasher: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}
