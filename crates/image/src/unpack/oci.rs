//! OCI image layouts (OCI image-spec 1.1): `index.json`, one manifest, its layers one over the other. Every blob is
//! hashed before a byte of it is used. The image's configuration (environment, command) is not taken over.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::entry::EntryPath;
use super::tarball::{for_each_entry, write_item};
use super::writer::TreeWriter;
use super::{UnpackLimits, bad};
use crate::digest::Digest;
use crate::error::{ArchiveProblem, Doing, ImageError};
use crate::event::{Meter, Monitor};

/// An index or a manifest may have this many bytes.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Indexes may lie in indexes this deep.
const INDEX_DEPTH_MAX: u32 = 4;
/// What a layer's entry is called that removes another.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize, Clone)]
struct Platform {
    architecture: String,
    os: String,
}

/// Unpacks the one linux/amd64 image of the layout at `layout` into the empty directory `root`. Gives how many entries
/// were left out, and the digest of its manifest.
pub(crate) fn unpack_oci(
    layout: &Path,
    root: &Path,
    limits: UnpackLimits,
    monitor: &Monitor,
    meter: &mut Meter,
) -> Result<(u64, Digest), ImageError> {
    let manifest = find_manifest(layout, monitor)?;
    let (blob, digest) = verified_blob(layout, &manifest, monitor)?;
    let manifest: Manifest = document(&blob)?;
    // All layers are checked before the first is unpacked.
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        match layer.media_type.as_str() {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {}
            other => {
                return Err(bad(layout, other.as_bytes(), ArchiveProblem::UnsupportedEntry("media type".into())));
            }
        }
        layers.push(verified_blob(layout, layer, monitor)?.0);
    }
    let mut writer = TreeWriter::new(root, layout, limits, monitor, meter)?;
    for layer in &layers {
        unpack_layer(layer, limits, monitor, &mut writer)?;
    }
    Ok((writer.finish()?, digest))
}

fn find_manifest(layout: &Path, monitor: &Monitor) -> Result<Descriptor, ImageError> {
    let index: Index = document(&layout.join("index.json"))?;
    let mut pending: Vec<(Descriptor, u32)> = index.manifests.into_iter().map(|one| (one, 0)).collect();
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    while let Some((descriptor, depth)) = pending.pop() {
        let fits = descriptor.platform.as_ref().is_none_or(|p| p.architecture == "amd64" && p.os == "linux");
        if !fits || !seen.insert(descriptor.digest.clone()) {
            continue;
        }
        match descriptor.media_type.as_str() {
            "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
                found.push(descriptor)
            }
            "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json"
                if depth < INDEX_DEPTH_MAX =>
            {
                let (blob, _) = verified_blob(layout, &descriptor, monitor)?;
                let index: Index = document(&blob)?;
                pending.extend(index.manifests.into_iter().map(|one| (one, depth + 1)));
            }
            // Signatures and the like lie beside images.
            _ => {}
        }
    }
    match <[Descriptor; 1]>::try_from(found) {
        Ok([one]) => Ok(one),
        Err(found) => Err(bad(layout, b"index.json", ArchiveProblem::NotOneImage(found.len()))),
    }
}

/// The file that a descriptor refers to, once its size and digest are right.
fn verified_blob(layout: &Path, descriptor: &Descriptor, monitor: &Monitor) -> Result<(PathBuf, Digest), ImageError> {
    let name = descriptor.digest.as_bytes();
    let expected: Digest = Some(descriptor.digest.as_str())
        .filter(|text| text.starts_with("sha256:"))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| bad(layout, name, ArchiveProblem::UnsupportedEntry("not a sha256 digest".into())))?;
    let path = layout.join("blobs/sha256").join(expected.hex());
    let file = File::open(&path).doing("opening", &path)?;
    let size = file.metadata().doing("reading", &path)?.len();
    if size != descriptor.size {
        let text = format!("{size} bytes where the descriptor says {}", descriptor.size);
        return Err(bad(layout, name, ArchiveProblem::Malformed(text)));
    }
    let found = Digest::of_reader(file, &path, |_| monitor.go_on())?;
    if found != expected {
        return Err(bad(layout, name, ArchiveProblem::DigestMismatch { expected, found }));
    }
    Ok((path, found))
}

fn document<T: DeserializeOwned>(path: &Path) -> Result<T, ImageError> {
    let mut text = Vec::new();
    let file = File::open(path).doing("opening", path)?;
    file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut text).doing("reading", path)?;
    let malformed = |problem: String| bad(path, b"", ArchiveProblem::Malformed(problem));
    if text.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(malformed(format!("more than {DOCUMENT_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))
}

/// Two readings: whiteouts concern the layers below only, wherever in their layer they stand.
fn unpack_layer(
    layer: &Path,
    limits: UnpackLimits,
    monitor: &Monitor,
    writer: &mut TreeWriter<'_>,
) -> Result<(), ImageError> {
    for_each_entry(layer, limits, monitor, |item| match Whiteout::of(&item.path, layer)? {
        Some(Whiteout::Opaque(dir)) => writer.clear(&dir),
        Some(Whiteout::Name(path)) => writer.remove(&path),
        None => Ok(()),
    })?;
    for_each_entry(layer, limits, monitor, |item| match Whiteout::of(&item.path, layer)? {
        Some(_) => Ok(()),
        None => write_item(writer, layer, item),
    })
}

enum Whiteout {
    /// Everything that lower layers have in this directory is gone.
    Opaque(EntryPath),
    /// What lower layers have under this name is gone.
    Name(EntryPath),
}

impl Whiteout {
    fn of(path: &EntryPath, layer: &Path) -> Result<Option<Self>, ImageError> {
        use std::os::unix::ffi::OsStrExt;
        let Some((_, name)) = path.split() else {
            return Ok(None);
        };
        let name = name.as_bytes();
        if name == OPAQUE {
            return Ok(path.parent().map(Self::Opaque));
        }
        let Some(hidden) = name.strip_prefix(WHITEOUT) else {
            return Ok(None);
        };
        let hidden = path.sibling(hidden).map_err(|problem| bad(layer, path.as_bytes(), problem))?;
        Ok(Some(Self::Name(hidden)))
    }
}
