//! A file that is said to be a recording: every exchange in it can be shown, whatever it holds.
#![no_main]

use std::sync::LazyLock;

use belljar_model::fuzzing::shown;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("belljar-fuzz-recording-{}", std::process::id()));
    std::fs::write(&path, bytes).expect("a file");
    let turns = RUNTIME.block_on(shown(&path)).unwrap_or_default();
    for (index, turn) in turns.iter().enumerate() {
        assert_eq!(turn.summary.number, index + 1);
    }
});
