//! OCI layouts.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{Source, UnpackLimits, unpack_oci};
use super::{Place, Tar, gzip, problem_of};
use crate::digest::Digest;
use crate::error::{ArchiveProblem, ImageError};
use crate::event::{Monitor, Phase};

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
        let layers: Vec<_> = layers.iter().map(|layer| layout.blob(LAYER_TYPE, &gzip(layer))).collect();
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
        unpack_oci(&self.dir, &self.place.root(), UnpackLimits::default(), &monitor, &mut meter)
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
        ["dir d 755", "kept f 644 1", "opaque d 755", "opaque/new f 644 2", "replaced f 644 2"]
    );
}

#[test]
fn oci_platforms_and_nested_indexes() {
    let layout = Layout::new(vec![]);
    let image = |text: &str| {
        let layer = layout.blob(LAYER_TYPE, &gzip(&Tar::default().file("which", text).end()));
        layout.blob(MANIFEST_TYPE, serde_json::json!({"layers": [layer]}).to_string().as_bytes())
    };
    let platform = |mut descriptor: serde_json::Value, architecture: &str| {
        descriptor["platform"] = serde_json::json!({"architecture": architecture, "os": "linux"});
        descriptor
    };
    let list = serde_json::json!({"manifests": [platform(image("amd64"), "amd64"), platform(image("arm64"), "arm64")]});
    let nested = layout.blob("application/vnd.oci.image.index.v1+json", list.to_string().as_bytes());
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
    let expected: Digest = blob["digest"].as_str().expect("text").parse().expect("a digest");
    fs::write(layout.blob_path(&expected), br#"{"layers":{}}"#).expect("writes");
    layout.index(std::slice::from_ref(&blob));
    let found = Digest::of(br#"{"layers":{}}"#);
    assert_eq!(layout.problem("changed blob"), ArchiveProblem::DigestMismatch { expected, found });
    blob["size"] = 3.into();
    layout.index(std::slice::from_ref(&blob));
    let text = "13 bytes where the descriptor says 3".to_owned();
    assert_eq!(layout.problem("wrong size"), ArchiveProblem::Malformed(text));
    for digest in ["sha256:../../../outside/canary", "sha512:00", "", "../../outside/canary"] {
        blob["digest"] = digest.into();
        layout.index(std::slice::from_ref(&blob));
        let expected = ArchiveProblem::UnsupportedEntry("not a sha256 digest".into());
        assert_eq!(layout.problem(digest), expected, "{digest}");
    }

    let layout = Layout::new(vec![]);
    let layer = layout.blob("application/vnd.oci.image.layer.nondistributable.v1.tar", b"");
    let manifest = serde_json::json!({"layers": [layer]}).to_string();
    layout.index(&[layout.blob(MANIFEST_TYPE, manifest.as_bytes())]);
    assert_eq!(layout.problem("media type"), ArchiveProblem::UnsupportedEntry("media type".into()));
}

#[test]
fn sources_are_told_apart() {
    let layout = Layout::new(vec![]);
    let tar = layout.place.write("a.tar", b"");
    assert_eq!(Source::detect(&layout.dir).expect("found"), Source::Oci(layout.dir.clone()));
    assert_eq!(Source::detect(&layout.place.root()).expect("found"), Source::Dir(layout.place.root()));
    assert_eq!(Source::detect(&tar).expect("found"), Source::Tar(tar.clone()));
    assert!(matches!(Source::detect(Path::new("/dev/null")), Err(ImageError::UnknownSource(_))));
    assert!(matches!(Source::detect(&tar.with_extension("no")), Err(ImageError::Io { .. })));
}
