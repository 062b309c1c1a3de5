//! Nothing half done is committed.

use super::Finding;
use super::mask;
use super::tree::Tree;

const LEFTOVERS: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];

/// No macro that says "later", no test that is switched off.
pub fn leftovers(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for word in LEFTOVERS {
            findings.extend(file.code.match_indices(word).map(|(at, _)| {
                Finding::at(
                    &file.path,
                    mask::line_of(&file.code, at),
                    format!("`{word}` is not for committed code"),
                )
            }));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_found_even_in_tests() {
        let text = "fn a() { todo!() }\n#[cfg(test)]\nmod t {\n #[ignore]\n fn b() {} }\n// todo! in words is fine\n";
        let places: Vec<String> = leftovers(&Tree::sample(&[("a.rs", text)]))
            .into_iter()
            .map(|f| f.place)
            .collect();
        assert_eq!(places, ["a.rs:1", "a.rs:4"]);
    }
}
