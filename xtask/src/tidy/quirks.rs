//! Every row of the table of quirks names the cases that prove it; those exist, and no case of the tables' folders is left out.
//!
//! A table stands under a line ``Cases in `FOLDER/`:``. Its last column holds ``` `file` "case" ``` of that folder, ``` `file` ``` where a file is
//! one case, or a path from the root and the name of a check, as in the ledger of differences.

use std::collections::BTreeSet;

use super::Finding;
use super::seen;
use super::tree::Tree;

const PAGE: &str = "docs/quirks.md";
const FOLDER: &str = "Cases in `";

/// Cases that are named and not there, rows without any, and cases that no row names.
pub fn table(tree: &Tree) -> Vec<Finding> {
    let Some(page) = seen::find(tree, PAGE) else { return Vec::new() };
    let (mut findings, mut folder) = (Vec::new(), None);
    let (mut folders, mut named) = (BTreeSet::new(), BTreeSet::new());
    for (line, text) in (1..).zip(page.text.lines()) {
        if let Some(rest) = text.strip_prefix(FOLDER) {
            folder = rest.split_once('`').map(|(folder, _)| folder.to_owned());
            folders.extend(folder.clone());
        }
        let Some(folder) = folder.as_ref().filter(|_| text.starts_with("| ")) else { continue };
        let last = text.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        if last == "case" {
            continue;
        }
        let cases = cases(last, folder);
        if cases.is_empty() {
            findings.push(Finding::at(PAGE, line, "the row names no case that proves it"));
        }
        let faults = cases.iter().filter_map(|case| fault(tree, case));
        findings.extend(faults.map(|what| Finding::at(PAGE, line, what)));
        named.extend(cases);
    }
    let there = folders.iter().flat_map(|folder| all(tree, folder));
    findings.extend(there.filter(|case| !named.contains(case)).map(|(path, name)| {
        let name = name.map(|name| format!(" \"{name}\"")).unwrap_or_default();
        Finding::file(PAGE, format!("no row names `{path}`{name}"))
    }));
    findings
}

/// A file, and one of its cases where it has several.
type Case = (String, Option<String>);

/// The cases that a cell names.
fn cases(cell: &str, folder: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut rest = cell;
    while let Some((file, behind)) = rest.strip_prefix('`').and_then(|rest| rest.split_once('`')) {
        let path = if file.contains('/') { file.to_owned() } else { format!("{folder}{file}.json") };
        let name = behind.strip_prefix(" \"").and_then(|behind| behind.split_once('"'));
        rest = name.map_or(behind, |(_, behind)| behind);
        cases.push((path, name.map(|(name, _)| name.to_owned())));
        rest = rest.strip_prefix(", ").unwrap_or(rest);
    }
    if rest.is_empty() { cases } else { Vec::new() }
}

fn fault(tree: &Tree, (path, name): &Case) -> Option<String> {
    match name {
        Some(name) => seen::fault(tree, &format!("`{path}` \"{name}\"")),
        None => match seen::find(tree, path) {
            None => Some(format!("`{path}` is not in the repository")),
            Some(file) => (!seen::cases(&file.text).is_empty()).then(|| format!("`{path}` holds many cases: name one")),
        },
    }
}

/// Every case of a folder.
fn all(tree: &Tree, folder: &str) -> Vec<Case> {
    let files = tree.files.iter().filter(|file| file.path.starts_with(folder) && file.path.ends_with(".json"));
    files
        .flat_map(|file| {
            let cases = seen::cases(&file.text);
            let names = cases.iter().map(|case| case["name"].as_str().map(str::to_owned));
            match cases.is_empty() {
                true => vec![(file.path.clone(), None)],
                false => names.map(|name| (file.path.clone(), name)).collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(rows: &str) -> Vec<String> {
        let page = format!("Cases in `t/`:\n\n| quirk | case |\n|---|---|\n{rows}\n");
        let tree = Tree::sample(&[
            (PAGE, &page),
            ("t/calls.json", r#"[{"name": "one"}, {"name": "two"}]"#),
            ("t/torn.json", r#"{"via": "bedrock"}"#),
            ("crates/wire/tests/a.rs", "#[test]\nfn reads() {}\n"),
        ]);
        table(&tree).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_whole_table_has_no_finding() {
        let rows = "| a | `calls` \"one\", `calls` \"two\" |\n| b | `torn`, `crates/wire/tests/a.rs` \"reads\" |";
        assert_eq!(finds(rows), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_found() {
        let rest = "| b | `torn` |";
        for (row, words) in [
            ("| a | `calls` \"one\" |", "no row names `t/calls.json` \"two\""),
            ("| a | `calls` \"one\", `calls` \"two\", `calls` \"three\" |", "no check \"three\""),
            ("| a | `calls` \"one\", `calls` \"two\", `call` \"two\" |", "not in the repository"),
            ("| a | `calls` \"one\", `calls` \"two\", `calls` |", "name one"),
            ("| a | `calls` \"one\", `calls` \"two\", `crates/wire/tests/a.rs` \"writes\" |", "no check \"writes\""),
            ("| a | `calls` \"one\", `calls` \"two\" |\n| c | somewhere |", "names no case"),
        ] {
            let found = finds(&format!("{row}\n{rest}"));
            assert!(found.len() == 1 && found[0].contains(words), "{row}: {found:?}");
        }
        assert_eq!(finds("| a | `calls` \"one\", `calls` \"two\" |"), ["no row names `t/torn.json`"]);
    }
}
