//! The documents: their headings, their links, and that they name no machine of ours.

use super::Finding;
use super::tree::{File, Tree};

const HEADINGS: &[&str] = &[
    "## What the hosted API does",
    "## What Belljar does",
    "## Why",
    "## How to see it",
];

/// Each page of the ledger has the same four headings in order, and the ledger's index links it.
pub fn divergence(tree: &Tree) -> Vec<Finding> {
    let index = tree
        .files
        .iter()
        .find(|file| file.path == "divergence/README.md");
    let index = index.map_or("", |file| file.text.as_str());
    let pages = tree.files.iter().filter(|file| {
        file.path.starts_with("divergence/")
            && file.path.ends_with(".md")
            && file.path != "divergence/README.md"
    });
    pages.flat_map(|page| page_findings(page, index)).collect()
}

fn page_findings(page: &File, index: &str) -> Vec<Finding> {
    let found: Vec<&str> = page
        .text
        .lines()
        .filter(|line| line.starts_with("## "))
        .collect();
    let name = page.path.rsplit('/').next().unwrap_or_default();
    let mut findings = Vec::new();
    if found != HEADINGS {
        findings.push(Finding::file(
            &page.path,
            format!("its headings must be exactly {HEADINGS:?}"),
        ));
    }
    if !index.contains(&format!("({name})")) {
        findings.push(Finding::file(
            &page.path,
            "divergence/README.md does not link it",
        ));
    }
    findings
}

/// Every Markdown link to a file of the repository leads somewhere.
pub fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in targets(&file.text) {
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
            if !elsewhere && !resolve(&file.path, path).is_some_and(|path| tree.has(&path)) {
                findings.push(Finding::at(
                    &file.path,
                    line,
                    format!("`{path}` is not in the repository"),
                ));
            }
        }
    }
    findings
}

/// (line, target) of each `[text](target)` outside code fences.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let pieces = line.split("](").skip(1);
        found.extend(pieces.filter_map(|piece| Some((index + 1, piece.split_once(')')?.0))));
    }
    found
}

fn resolve(page: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => page.split('/').collect(),
    };
    parts.pop();
    for piece in target.split('/') {
        match piece {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Paths of the machines this was written on.
const MACHINE: &[&str] = &[
    concat!("/wo", "rk/main"),
    concat!("/wo", "rk/shared"),
    concat!("/tmp/", "wt"),
    concat!("/root/", ".pyenv"),
];

/// No path of a developer's machine stands in a committed file.
pub fn machine_paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        for (index, line) in file.text.lines().enumerate() {
            for path in MACHINE {
                let own = |at: usize| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "/.-_}>*".contains(c))
                };
                if line.match_indices(path).any(|(at, _)| own(at)) {
                    findings.push(Finding::at(
                        &file.path,
                        index + 1,
                        format!("`{path}` is a path of one machine"),
                    ));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_without_its_headings_is_found() {
        let good = HEADINGS.join("\n\ntext\n\n");
        let tree = Tree::sample(&[
            ("divergence/README.md", "[a](a.md) [b](b.md)"),
            ("divergence/a.md", &good),
            ("divergence/b.md", "## Why\n"),
            ("divergence/c.md", &good),
        ]);
        let places: Vec<String> = divergence(&tree)
            .into_iter()
            .map(|finding| finding.place)
            .collect();
        assert_eq!(places, ["divergence/b.md", "divergence/c.md"]);
    }

    #[test]
    fn a_dead_link_is_found() {
        let text = "[a](../README.md) [b](gone.md#x)\n[c](https://example.com) [d](#here)\n```\n[e](no.md)\n```\n";
        let tree = Tree::sample(&[("README.md", ""), ("docs/a.md", text)]);
        assert_eq!(
            links(&tree),
            [Finding::at(
                "docs/a.md",
                1,
                "`gone.md` is not in the repository"
            )]
        );
    }

    #[test]
    fn a_machine_path_is_found_and_a_longer_path_is_not() {
        let bad = format!("see {}/x", MACHINE[0]);
        let tree = Tree::sample(&[
            ("a.md", &bad),
            ("b.md", &format!("/overlay{}x", MACHINE[0])),
        ]);
        assert_eq!(machine_paths(&tree).len(), 1);
    }
}
