//! Nothing half done is committed.

use super::Finding;
use super::mask;
use super::tree::Tree;

const LEFTOVERS: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];

/// The two reasons to keep a test out of a plain run: another test starts it as its child process, to kill it; or a stage of its own
/// starts what it needs, and runs it.
const ELSEWHERE: [&str; 2] = ["#[ignore = \"the child of ", "#[ignore = \"needs the services of "];

/// No macro that says "later", no test that is switched off.
pub fn leftovers(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let lines: Vec<&str> = file.text.lines().collect();
        for word in LEFTOVERS {
            let places = file.code.match_indices(word).map(|(at, _)| mask::line_of(&file.code, at));
            findings.extend(
                places
                    .filter(|line| !ELSEWHERE.iter().any(|reason| lines[line - 1].trim_start().starts_with(reason)))
                    .map(|line| Finding::at(&file.path, line, format!("`{word}` is not for committed code"))),
            );
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_found_even_in_tests() {
        let text = "fn a() { todo!() }\n#[cfg(test)]\nmod t {\n #[ignore]\n fn b() {} }\n// todo! in words is fine\n#[ignore = \"the child of x\"]\n#[ignore = \"needs the services of x\"]\n";
        let places: Vec<String> = leftovers(&Tree::sample(&[("a.rs", text)])).into_iter().map(|f| f.place).collect();
        assert_eq!(places, ["a.rs:1", "a.rs:4"]);
    }
}
