//! The glossary, enforced: names that were banned because they blur what a thing is.

use super::Finding;
use super::mask;
use super::tree::Tree;

/// (word, what to say instead). GLOSSARY.md has the reasons.
const BANNED: &[(&str, &str)] = &[
    ("vm", "sandbox or container"),
    ("snippet", "cell"),
    ("artifact", "file"),
    ("backend", "upstream, or the mechanism's own name"),
    ("job", "cell or turn"),
    ("session", "container or turn"),
];

/// (file, word, why the word is another's there).
const ALLOWED: &[(&str, &str, &str)] = &[
    ("crates/jail/src/step.rs", "session", "setsid(2) makes one"),
    ("crates/jail/src/enter.rs", "session", "setsid(2) makes one"),
    ("crates/jail/src/join.rs", "session", "setsid(2) makes one"),
    ("crates/store/src/worker.rs", "job", "work handed to a database thread; nothing that a caller sees"),
];

/// Names that say nothing.
const EMPTY: &[&str] = &["utils", "util", "common", "helpers", "misc"];

/// No file and no folder has a name that says nothing.
pub fn module_names(tree: &Tree) -> Vec<Finding> {
    tree.files
        .iter()
        .filter(|file| {
            file.path.split('/').any(|piece| {
                let stem = piece.split('.').next().unwrap_or(piece);
                EMPTY.contains(&stem)
            })
        })
        .map(|file| Finding::file(&file.path, "name it after what it does"))
        .collect()
}

/// No identifier of ours contains a banned word.
pub fn banned(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.product() {
        for (at, name) in identifiers(&file.product) {
            // The kernel's own names (SYS_process_vm_readv) are not ours to choose.
            let foreign = name.starts_with("SYS_") || name.starts_with("CLONE_");
            let used = BANNED.iter().find(|(word, _)| segments(name).any(|segment| segment == *word));
            let Some((word, instead)) = used.filter(|_| !foreign) else {
                continue;
            };
            if !ALLOWED.iter().any(|(path, allowed, _)| file.path == *path && allowed == word) {
                let what = format!("`{name}`: say {instead}, not {word}");
                findings.push(Finding::at(&file.path, mask::line_of(&file.product, at), what));
            }
        }
    }
    findings
}

fn identifiers(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.split(move |c: char| !part(c))
        .filter(|name| !name.is_empty())
        .map(|name| (name.as_ptr() as usize - code.as_ptr() as usize, name))
}

/// `CellJob_id` is `cell`, `job`, `id`.
fn segments(name: &str) -> impl Iterator<Item = String> {
    let mut words: Vec<String> = Vec::new();
    let mut lower = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && lower) || words.is_empty() {
            words.push(String::new());
        }
        lower = c.is_lowercase() || c.is_numeric();
        if let Some(word) = words.last_mut().filter(|_| c != '_') {
            word.extend(c.to_lowercase());
        }
    }
    words.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_names_are_found() {
        let tree = Tree::sample(&[
            ("crates/a/src/utils.rs", "//! x"),
            ("crates/a/src/common/b.rs", "//! x"),
            ("crates/a/src/cell.rs", "//! x"),
        ]);
        assert_eq!(module_names(&tree).len(), 2);
    }

    #[test]
    fn banned_words_are_found_in_names_only() {
        let text = "struct CellJob;\nfn run_snippet() {}\nlet jobless = SYS_process_vm_readv; // a job\n";
        let tree = Tree::sample(&[("crates/a/src/b.rs", text)]);
        let places: Vec<String> = banned(&tree).into_iter().map(|finding| finding.place).collect();
        assert_eq!(places, ["crates/a/src/b.rs:1", "crates/a/src/b.rs:2"]);
    }

    #[test]
    fn names_are_split_into_words() {
        assert_eq!(segments("CellJob_id").collect::<Vec<_>>(), ["cell", "job", "id"]);
    }
}
