//! How long a file and a function may be, and that each file says what it is for.

use super::Finding;
use super::mask;
use super::tree::{File, Tree};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// A Rust test tells one story or is a table; it may be longer than what it tests.
const TEST_LINES_MAX: usize = 150;

/// In a comment, exempts a table: within the first twenty lines the file, directly above a function that function.
const TABLE: &str = "tidy: table";

/// Source files are short.
pub fn files(tree: &Tree) -> Vec<Finding> {
    let source = |file: &&File| {
        [".rs", ".py", ".mjs", ".js", ".sh"]
            .iter()
            .any(|end| file.path.ends_with(end))
    };
    tree.files
        .iter()
        .filter(source)
        .filter(|file| !file.text.lines().take(20).any(|line| line.contains(TABLE)))
        .filter_map(|file| {
            let lines = file.text.lines().count();
            (lines > FILE_LINES_MAX).then(|| {
                Finding::file(
                    &file.path,
                    format!("{lines} lines, at most {FILE_LINES_MAX}"),
                )
            })
        })
        .collect()
}

/// Functions are short, in Rust and in Python.
pub fn functions(tree: &Tree) -> Vec<Finding> {
    let rust = tree.rust().flat_map(rust_functions);
    let python = tree
        .files
        .iter()
        .filter(|file| file.path.ends_with(".py"))
        .flat_map(python_functions);
    rust.chain(python).collect()
}

fn rust_functions(file: &File) -> Vec<Finding> {
    let lines: Vec<&str> = file.text.lines().collect();
    mask::words(&file.code, "fn")
        .filter_map(|at| {
            let body = at + file.code[at..].find(['{', ';'])?;
            if file.code.as_bytes()[body] == b';' {
                return None;
            }
            let first = mask::line_of(&file.code, at);
            let last = mask::line_of(&file.code, mask::block_end(&file.code, body));
            too_long(file, &lines, first, last)
        })
        .collect()
}

fn python_functions(file: &File) -> Vec<Finding> {
    let lines: Vec<&str> = file.text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let begins = |line: &str| {
        let line = line.trim_start();
        line.starts_with("def ") || line.starts_with("async def ")
    };
    (0..lines.len())
        .filter(|&i| begins(lines[i]))
        .filter_map(|i| {
            let ends = |line: &&str| {
                !line.trim().is_empty()
                    && indent(line) <= indent(lines[i])
                    && !line.trim_start().starts_with(')')
            };
            let length = lines[i + 1..].iter().take_while(|line| !ends(line)).count();
            too_long(file, &lines, i + 1, i + 1 + length)
        })
        .collect()
}

fn too_long(file: &File, lines: &[&str], first: usize, last: usize) -> Option<Finding> {
    let length = last + 1 - first;
    let rust_test = file.path.ends_with(".rs") && file.is_test_code();
    let lines_max = if rust_test {
        TEST_LINES_MAX
    } else {
        FUNCTION_LINES_MAX
    };
    let above = lines[first.saturating_sub(4)..first]
        .iter()
        .any(|line| line.contains(TABLE));
    (length > lines_max && !above).then(|| {
        Finding::at(
            &file.path,
            first,
            format!("a function of {length} lines, at most {lines_max}"),
        )
    })
}

/// A Rust file begins by saying its one job.
pub fn heads(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| !file.text.trim_start().starts_with("//!"))
        .map(|file| {
            Finding::file(
                &file.path,
                "begin with a `//!` line that says the file's one job",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_found_and_a_table_is_not() {
        let long = "//! x\n".to_owned() + &"a;\n".repeat(FILE_LINES_MAX);
        let table = format!("//! tidy: table\n{long}");
        let tree = Tree::sample(&[("a.rs", &long), ("b.rs", &table)]);
        assert_eq!(
            files(&tree),
            [Finding::file("a.rs", "601 lines, at most 600")]
        );
    }

    #[test]
    fn a_long_function_is_found_in_both_languages() {
        let rust = format!("fn ok() {{}}\nfn long() {{\n{}}}\n", " a();\n".repeat(70));
        let python = format!(
            "def ok():\n    pass\n\ndef long():\n{}\nx = 1\n",
            "    a()\n".repeat(71)
        );
        let tree = Tree::sample(&[("a.rs", &rust), ("b.py", &python)]);
        let places: Vec<String> = functions(&tree)
            .into_iter()
            .map(|finding| finding.place)
            .collect();
        assert_eq!(places, ["a.rs:2", "b.py:4"]);
    }

    #[test]
    fn a_headless_file_is_found() {
        let tree = Tree::sample(&[("a.rs", "fn a() {}"), ("b.rs", "//! Head.\n")]);
        assert_eq!(heads(&tree).len(), 1);
    }
}
