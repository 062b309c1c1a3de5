//! Every page of the ledger of differences names the checks that it is still true, and those checks exist.
//!
//! A line is ``- Seen by: `path` "name"``: a test of a Rust file, a check of an end-to-end suite, or a case of a table. A scenario
//! or a recording to conform to is a file of its own, and has no name beside its path.

use serde_json::Value;

use super::Finding;
use super::tree::{File, Tree};

const LINE: &str = "- Seen by: ";
const SCENARIOS: &str = "crates/turn/tests/scenarios/";
const FIXTURES: &str = "tests/conformance/fixtures/";
const RUNNER: &str = "tests/e2e/run.py";
const TABLE: &str = "tests/e2e/divergence/cases.json";

/// Each page has at least one such line, and each line names a check that is there.
pub fn pages(tree: &Tree) -> Vec<Finding> {
    let pages = tree.files.iter().filter(|file| {
        file.path.starts_with("divergence/") && file.path.ends_with(".md") && file.path != "divergence/README.md"
    });
    pages.flat_map(|page| page_findings(tree, page)).collect()
}

/// Each case of the ledger's own table names a page that is there.
pub fn table(tree: &Tree) -> Vec<Finding> {
    let Some(file) = find(tree, TABLE) else { return Vec::new() };
    let told = cases(&file.text).into_iter().map(|case| case["page"].as_str().unwrap_or_default().to_owned());
    let unknown = told.filter(|page| !tree.has(&format!("divergence/{page}")));
    unknown
        .map(|page| Finding::file(TABLE, format!("a case is of page `{page}`, which is not in divergence/")))
        .collect()
}

fn page_findings(tree: &Tree, page: &File) -> Vec<Finding> {
    let lines: Vec<(usize, &str)> =
        page.text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, line.strip_prefix(LINE)?))).collect();
    if lines.is_empty() {
        return vec![Finding::file(&page.path, format!("no line `{LINE}...` names a check that it is still true"))];
    }
    let faults = lines.into_iter().filter_map(|(line, text)| Some((line, fault(tree, text)?)));
    faults.map(|(line, what)| Finding::at(&page.path, line, what)).collect()
}

/// What is wrong with what stands behind `Seen by:`.
pub(super) fn fault(tree: &Tree, text: &str) -> Option<String> {
    let Some((path, name)) = parts(text) else {
        return Some("it must be `path` in backquotes, then \"name\" unless it is a scenario".to_owned());
    };
    let Some(file) = find(tree, path) else {
        return Some(format!("`{path}` is not in the repository"));
    };
    match name {
        None if path.starts_with(SCENARIOS) || path.starts_with(FIXTURES) => None,
        None => Some(format!("`{path}` holds many checks: name one")),
        Some(name) => {
            let there = match path.rsplit('.').next() {
                Some("rs") => has_test(&file.code, name),
                Some("json") => {
                    cases(&file.text).iter().any(|case| ["name", "why", "kind"].iter().any(|key| case[*key] == name))
                }
                Some("py") => is_run(tree, path) && has_check(&file.text, name),
                _ => false,
            };
            (!there).then(|| format!("`{path}` has no check \"{name}\" that is run"))
        }
    }
}

/// The path, and the name where there is one.
fn parts(text: &str) -> Option<(&str, Option<&str>)> {
    let (path, rest) = text.strip_prefix('`')?.split_once('`')?;
    match rest {
        "" => Some((path, None)),
        rest => Some((path, Some(rest.strip_prefix(" \"")?.strip_suffix('"')?))),
    }
}

pub(super) fn find<'a>(tree: &'a Tree, path: &str) -> Option<&'a File> {
    tree.files.iter().find(|file| file.path == path)
}

/// Whether the function of this name has `#[test]`, or tokio's, among the attributes over it.
fn has_test(code: &str, name: &str) -> bool {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    let at = lines.iter().position(|line| line.strip_prefix("async ").unwrap_or(line).starts_with(&head));
    let is_test = |line: &&str| *line == "#[test]" || line.starts_with("#[tokio::test");
    at.is_some_and(|at| lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).any(is_test))
}

/// The cases of a table: a list, or the list `cases` of an object.
pub(super) fn cases(text: &str) -> Vec<Value> {
    match serde_json::from_str(text) {
        Ok(Value::Array(cases)) => cases,
        Ok(Value::Object(mut table)) => match table.remove("cases") {
            Some(Value::Array(cases)) => cases,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Whether the end-to-end runner names this program, or names one that does.
fn is_run(tree: &Tree, path: &str) -> bool {
    let stem = |path: &str| path.rsplit('/').next().and_then(|file| file.strip_suffix(".py")).map(str::to_owned);
    let named_in = |file: &File, path: &str| stem(path).is_some_and(|stem| file.text.contains(&stem));
    let Some(runner) = find(tree, RUNNER) else { return false };
    let beside = tree.files.iter().filter(|file| file.path != path && file.path.starts_with("tests/e2e/"));
    named_in(runner, path) || beside.filter(|file| named_in(file, path)).any(|file| named_in(runner, &file.path))
}

/// A check is a text that is printed, or a function that stands in a list as well.
fn has_check(text: &str, name: &str) -> bool {
    let listed = || text.matches(name).count() > 1;
    text.contains(&format!("\"{name}\"")) || (text.contains(&format!("def {name}(")) && listed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(line: &str) -> Vec<String> {
        let page = format!("## How to see it\n\n{line}\n");
        let tree = Tree::sample(&[
            ("divergence/README.md", ""),
            ("divergence/a.md", &page),
            ("crates/turn/tests/scenarios/pause.txt", "> start"),
            (
                "crates/wire/tests/a.rs",
                "#[test]\nfn reads() {}\n\nfn helps() {}\n\n#[tokio::test]\nasync fn waits() {}\n",
            ),
            ("t/rows.json", r#"[{"row": "1", "why": "a row", "request": {"name": "inner"}}]"#),
            ("t/table.json", r#"{"cases": [{"name": "a case"}]}"#),
            ("tests/e2e/run.py", "import a_suite"),
            ("tests/e2e/a_suite.py", "def listed(): \"\"\"a check\"\"\"\n\ndef alone(): pass\n\nCASES = [listed]\n"),
            ("tests/e2e/b_suite.py", "report.check(\"a check\", x)"),
        ]);
        pages(&tree).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn checks_that_are_there_are_found() {
        for line in [
            "- Seen by: `crates/turn/tests/scenarios/pause.txt`",
            "- Seen by: `crates/wire/tests/a.rs` \"reads\"",
            "- Seen by: `crates/wire/tests/a.rs` \"waits\"",
            "- Seen by: `t/rows.json` \"a row\"",
            "- Seen by: `t/table.json` \"a case\"",
            "- Seen by: `tests/e2e/a_suite.py` \"a check\"",
            "- Seen by: `tests/e2e/a_suite.py` \"listed\"",
        ] {
            assert_eq!(finds(line), [""; 0], "{line}");
        }
    }

    #[test]
    fn what_is_not_there_is_found_out() {
        for (line, words) in [
            ("Run it and look.", "names a check"),
            ("- Seen by: the suite", "in backquotes"),
            ("- Seen by: `crates/wire/tests/a.rs` reads", "in backquotes"),
            ("- Seen by: `crates/wire/tests/b.rs` \"reads\"", "not in the repository"),
            ("- Seen by: `crates/wire/tests/a.rs`", "name one"),
            ("- Seen by: `crates/wire/tests/a.rs` \"helps\"", "no check"),
            ("- Seen by: `crates/wire/tests/a.rs` \"read\"", "no check"),
            ("- Seen by: `t/rows.json` \"inner\"", "no check"),
            ("- Seen by: `t/table.json` \"another case\"", "no check"),
            ("- Seen by: `tests/e2e/a_suite.py` \"alone\"", "no check"),
            ("- Seen by: `tests/e2e/b_suite.py` \"a check\"", "that is run"),
        ] {
            let found = finds(line);
            assert!(found.len() == 1 && found[0].contains(words), "{line}: {found:?}");
        }
    }

    #[test]
    fn cases_of_no_page_are_found() {
        let cases = r#"{"cases": [{"page": "a.md", "name": "x"}, {"page": "b.md", "name": "y"}]}"#;
        let tree = Tree::sample(&[("divergence/a.md", ""), (TABLE, cases)]);
        assert_eq!(table(&tree).len(), 1);
    }
}
