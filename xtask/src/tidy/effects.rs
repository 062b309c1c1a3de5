//! Who may touch the world: IO, the clock, the environment, `unsafe`.

use super::Finding;
use super::mask;
use super::tree::{File, Tree};

/// Crates that compute and nothing else.
const PURE: &[&str] = &["crates/ids/", "crates/wire/", "crates/turn/", "crates/guard/"];

const OUTSIDE: &[&str] =
    &["std::fs", "std::net", "std::env", "std::process", "std::thread", "SystemTime", "Instant", "tokio", "async fn"];

/// (folder, words that must not stand in its code). Text beside the dependency table: a re-export would slip past that.
const FOREIGN: &[(&str, &[&str])] = &[
    ("crates/jail/", &["tokio", "async fn", "async move"]),
    ("crates/sandbox/", &["axum", "reqwest", "rusqlite", "belljar_wire"]),
    ("crates/image/", &["axum", "reqwest", "rusqlite", "belljar_wire"]),
    ("crates/model/", &["rusqlite", "belljar_sandbox", "belljar_store"]),
    ("crates/store/", &["axum", "reqwest", "belljar_sandbox"]),
    ("crates/server/", &["rusqlite"]),
];

/// Files that may read a clock, each with its reason. Everything else is handed the time.
const CLOCKS: &[(&str, &str)] = &[
    ("crates/server/src/clock.rs", "the one Clock"),
    ("crates/model/src/link/signer.rs", "a signature holds the time of its request"),
    ("crates/server/src/bench/stopwatch.rs", "benchmarks measure time"),
    ("crates/server/src/cli/image.rs", "paces a progress bar"),
    ("crates/server/src/driver/silence.rs", "the timer between pings"),
    ("crates/model/src/link/alarm.rs", "the time limits of an upstream"),
    ("crates/sandbox/src/nurseries.rs", "how long a nursery that failed rests"),
    ("crates/store/src/values/clock.rs", "the store's Clock, which the server passes in"),
    ("crates/sandbox/src/config.rs", "the default of the clock that is passed in"),
    ("crates/sandbox/src/cell.rs", "the watchdog and `wall_ms`"),
    ("crates/sandbox/src/cell/handover.rs", "the same, from one program to the next"),
    ("crates/sandbox/src/command/mod.rs", "the watchdog and `wall_ms`"),
    ("crates/sandbox/src/command/calls.rs", "calls that come together wait together"),
    ("crates/sandbox/src/repl/cell.rs", "the watchdog and `wall_ms`"),
    ("crates/sandbox/src/clock.rs", "the watchdog of code that waits for tools"),
    ("crates/sandbox/src/calls.rs", "how long a call may stay unanswered"),
    ("crates/jail/src/probe/trial.rs", "tells the operator how long a start took"),
    ("crates/model/src/breaker.rs", "how long an upstream rests"),
    ("crates/model/src/recording/tape.rs", "when an upstream was asked, and how long it took"),
    ("crates/image/src/event.rs", "times the phases of a build"),
];

/// Where the environment may be read.
const ENVIRONMENT: &[&str] = &["crates/server/src/config"];

/// `ids`, `wire`, `turn` and `guard` do no IO and know no runtime.
pub fn pure_crates(tree: &Tree) -> Vec<Finding> {
    let files = tree.product().filter(|file| PURE.iter().any(|dir| file.path.starts_with(dir)));
    files.flat_map(|file| hits(file, OUTSIDE, "a pure crate must not use")).collect()
}

/// No organ speaks another's language.
pub fn foreign_words(tree: &Tree) -> Vec<Finding> {
    let of_dir = |(dir, words): &(&str, &'static [&'static str])| {
        let (dir, words) = ((*dir).to_owned(), *words);
        tree.product()
            .filter(move |file| file.path.starts_with(&dir))
            .flat_map(move |file| hits(file, words, "this crate must not use"))
            .collect::<Vec<_>>()
    };
    FOREIGN.iter().flat_map(of_dir).collect()
}

/// `unsafe` stands in `crates/jail` and in the guest's native part, nowhere else.
pub fn unsafe_place(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| !file.path.starts_with("crates/jail/") && !file.path.starts_with("guest/"))
        .flat_map(|file| {
            mask::words(&file.code, "unsafe")
                .map(|at| Finding::at(&file.path, mask::line_of(&file.code, at), "`unsafe` belongs in crates/jail"))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Above each `unsafe` block or impl stands a `SAFETY:` comment.
pub fn unsafe_argued(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let lines: Vec<&str> = file.text.lines().collect();
        for at in mask::words(&file.code, "unsafe") {
            let after = file.code[at + "unsafe".len()..].trim_start();
            let line = mask::line_of(&file.code, at);
            if (after.starts_with('{') || after.starts_with("impl")) && !argued(&lines, line) {
                findings.push(Finding::at(&file.path, line, "say in a `// SAFETY:` comment why this is sound"));
            }
        }
    }
    findings
}

/// The argument stands at most eight lines above: a comment may be long and a statement may begin before its block.
fn argued(lines: &[&str], line: usize) -> bool {
    lines[line.saturating_sub(9)..line].iter().any(|text| text.contains("SAFETY:"))
}

/// `SystemTime::now` and `Instant::now` only in the listed files.
pub fn clock(tree: &Tree) -> Vec<Finding> {
    let listed = |file: &&File| !CLOCKS.iter().any(|(path, _)| file.path == *path);
    let words = &["SystemTime::now", "Instant::now", "Timestamp::now", "Zoned::now"];
    tree.product().filter(listed).flat_map(|file| hits(file, words, "take the time from a Clock instead of")).collect()
}

/// Environment variables are configuration: read in one place.
pub fn environment(tree: &Tree) -> Vec<Finding> {
    let listed = |file: &&File| !ENVIRONMENT.iter().any(|start| file.path.starts_with(start));
    let words = &["env::var", "env::var_os", "env::vars", "env::vars_os"];
    tree.product()
        .filter(listed)
        .flat_map(|file| hits(file, words, "only the server's configuration reads the environment, not"))
        .collect()
}

fn hits(file: &File, words: &[&str], what: &str) -> Vec<Finding> {
    words
        .iter()
        .flat_map(|word| {
            mask::words(&file.product, word)
                .map(|at| Finding::at(&file.path, mask::line_of(&file.product, at), format!("{what} `{word}`")))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> Vec<String> {
        rule(&Tree::sample(&[(path, text)])).into_iter().map(|finding| finding.place).collect()
    }

    const NONE: &[&str] = &[];

    #[test]
    fn io_in_a_pure_crate_is_found_and_in_its_tests_is_not() {
        let bad = "fn a() {\n std::fs::read(p)\n}";
        assert_eq!(places(pure_crates, "crates/turn/src/a.rs", bad), ["crates/turn/src/a.rs:2"]);
        assert_eq!(places(pure_crates, "crates/turn/tests/a.rs", bad), NONE);
        let tested = "#[cfg(test)]\nmod tests { use std::fs; }";
        assert_eq!(places(pure_crates, "crates/turn/src/a.rs", tested), NONE);
        assert_eq!(places(pure_crates, "crates/turn/src/a.rs", "// std::fs\n"), NONE);
    }

    #[test]
    fn http_in_the_sandbox_is_found() {
        assert_eq!(places(foreign_words, "crates/sandbox/src/a.rs", "use axum::Json;"), ["crates/sandbox/src/a.rs:1"]);
    }

    #[test]
    fn unsafe_outside_the_jail_is_found() {
        assert_eq!(places(unsafe_place, "crates/server/src/a.rs", "unsafe { x() }"), ["crates/server/src/a.rs:1"]);
        assert_eq!(places(unsafe_place, "crates/jail/src/a.rs", "unsafe { x() }"), NONE);
        assert_eq!(places(unsafe_place, "crates/ids/src/a.rs", "#![forbid(unsafe_code)]"), NONE);
    }

    #[test]
    fn an_unargued_unsafe_block_is_found() {
        assert_eq!(
            places(unsafe_argued, "crates/jail/src/a.rs", "fn a() {\nunsafe { x() } }"),
            ["crates/jail/src/a.rs:2"]
        );
        assert_eq!(places(unsafe_argued, "crates/jail/src/a.rs", "// SAFETY: x is sound\nunsafe { x() }"), NONE);
    }

    #[test]
    fn a_second_clock_is_found() {
        assert_eq!(places(clock, "crates/server/src/a.rs", "Instant::now()"), ["crates/server/src/a.rs:1"]);
        assert_eq!(places(clock, "crates/server/src/clock.rs", "Instant::now()"), NONE);
    }

    #[test]
    fn the_environment_outside_the_configuration_is_found() {
        assert_eq!(places(environment, "crates/model/src/a.rs", "std::env::var(\"K\")"), ["crates/model/src/a.rs:1"]);
        assert_eq!(places(environment, "crates/server/src/config.rs", "std::env::var(\"K\")"), NONE);
    }
}
