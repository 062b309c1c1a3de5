//! Whole turns as data: what goes in, and exactly what comes out.
//!
//! A file in `scenarios/` begins with the request over a small default and may set `samplings_max`, and what the server has `remembered`. Then inputs (`>`) and their
//! effects (`<`) follow, and at the end what the emitted events fold to (`=`). With `SCENARIOS=rewrite` in the environment, the
//! `<` and `=` lines are written anew, to be read before they are committed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod script;

use std::path::Path;

use script::Script;

#[test]
fn every_scenario_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 20, "scenarios are missing: {paths:?}");
    let rewrite = std::env::var("SCENARIOS").is_ok_and(|value| value == "rewrite");
    for path in paths {
        let written = std::fs::read_to_string(&path).unwrap();
        let played = Script::play(&written);
        if rewrite {
            std::fs::write(&path, played).unwrap();
        } else {
            assert!(written == played, "{}:\n{}", path.display(), first_difference(&written, &played));
        }
    }
}

fn first_difference(written: &str, played: &str) -> String {
    let mut played = played.lines();
    for (number, line) in written.lines().enumerate() {
        let now = played.next().unwrap_or("(nothing)");
        if line != now {
            return format!("line {}\nwritten {line}\nplayed  {now}", number + 1);
        }
    }
    format!("written (nothing)\nplayed  {}", played.next().unwrap_or("(nothing)"))
}
