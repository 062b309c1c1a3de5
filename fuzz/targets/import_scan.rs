//! The look at a cell's imports: any text, of any length, in time that grows no faster than the text.
#![no_main]

use belljar_sandbox::fuzzing::Warmth;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &str)| {
    let (lines, source) = input;
    let wanted = Warmth::wanted(source);
    // What stands behind comments is seen all the same, up to where nobody looks any more.
    let moved = format!("{}{source}", "#\n".repeat(usize::from(lines)));
    if moved.len() < 64 * 1024 && !source.starts_with('\n') {
        assert_eq!(Warmth::wanted(&moved), wanted, "{source:?}");
    }
    let _cut_anywhere = Warmth::wanted(&source.repeat(1 + 100_000 / source.len().max(1)));
});
