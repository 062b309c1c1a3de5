//! What the guest program makes of a plan: bytes in, a plan or a refusal out, and a plan survives being written again.
#![no_main]

use belljar_jail::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(written) = fuzzing::rewritten_plan(bytes) {
        assert_eq!(fuzzing::rewritten_plan(&written).as_ref(), Some(&written));
    }
});
