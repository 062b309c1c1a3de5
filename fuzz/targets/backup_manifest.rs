//! A backup's manifest: any bytes are one clear refusal, or files with paths that a backup has, each once and in order.
#![no_main]

use belljar_store::fuzzing::read_manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(paths) = read_manifest(bytes) else { return };
    assert_eq!(paths.first().map(String::as_str), Some("belljar.sqlite"));
    assert!(paths.is_sorted_by(|one, other| one < other));
    for path in paths {
        let known = ["belljar.sqlite", "blobs.owner", "scope.secret"].contains(&path.as_str());
        assert!(known || path.starts_with("blobs/") || path.starts_with("recordings/"), "{path}");
        assert!(path.split('/').all(|name| !matches!(name, "" | "." | "..")), "{path}");
    }
});
