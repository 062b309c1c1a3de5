//! No catch-all arm over our own enums in `turn`: a new variant must break the build there.

use super::Finding;
use super::mask;
use super::tree::{File, Tree};

/// Types whose variants are not ours: a catch-all over them is allowed.
const FOREIGN: &[&str] = &[
    "Value", "Option", "Result", "Ordering", "Number", "Some", "Self",
];

/// Finds `_ =>` in a match one of whose other arms names a variant of ours (`Input::ClientGone`).
pub fn catch_all(tree: &Tree) -> Vec<Finding> {
    let turn = tree
        .product()
        .filter(|file| file.path.starts_with("crates/turn/"));
    turn.flat_map(findings_in).collect()
}

fn findings_in(file: &File) -> Vec<Finding> {
    mask::words(&file.product, "_")
        .filter(|&at| file.product[at + 1..].trim_start().starts_with("=>"))
        .filter(|&at| over_our_enum(&arms_before(&file.product[..at])))
        .map(|at| {
            let what =
                "name every variant instead of `_`, so that a new one must be thought about here";
            Finding::at(&file.path, mask::line_of(&file.product, at), what)
        })
        .collect()
}

/// The patterns of the enclosing match that stand before this point, without the arms' bodies in braces.
fn arms_before(before: &str) -> String {
    let mut depth = 0_usize;
    let mut kept: Vec<char> = Vec::new();
    for c in before.chars().rev() {
        match c {
            '}' => depth += 1,
            '{' if depth == 0 => break,
            '{' => depth -= 1,
            _other if depth == 0 => kept.push(c),
            _other => {}
        }
    }
    kept.into_iter().rev().collect()
}

fn over_our_enum(arms: &str) -> bool {
    let mut pieces: Vec<&str> = arms.split("=>").collect();
    // After the last arrow stands only the body of the arm before the catch-all.
    pieces.pop();
    if pieces.len() == 1 {
        // One arm and the rest is an `if let`: a filter, which a new variant does not concern.
        return false;
    }
    pieces.into_iter().any(|piece| {
        // Before each arrow stand the last arm's body, a line end or a comma, then the pattern.
        let pattern = match piece.trim_end().rsplit_once('\n') {
            Some((_, line)) => line,
            None => piece.rsplit(',').next().unwrap_or(piece),
        };
        names_our_variant(pattern)
    })
}

/// Whether what is matched on, or the first of a tuple, is a variant of ours.
fn names_our_variant(pattern: &str) -> bool {
    let pattern = pattern.trim_start_matches([' ', '(', '&', '|']);
    let pattern = pattern.strip_prefix("Some(").unwrap_or(pattern);
    let Some((owner, variant)) = pattern.split_once("::") else {
        return false;
    };
    let upper = |word: &str| word.chars().next().is_some_and(char::is_uppercase);
    let word = owner.chars().all(|c| c.is_alphanumeric() || c == '_');
    word && upper(owner) && upper(variant) && !FOREIGN.contains(&owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        catch_all(&Tree::sample(&[("crates/turn/src/a.rs", text)]))
            .into_iter()
            .map(|f| f.place)
            .collect()
    }

    #[test]
    fn a_catch_all_over_our_enum_is_found() {
        let bad = "match input {\n  Input::Stopping => { stop() }\n  Input::ClientGone => { stop() }\n  _ => go(),\n}";
        assert_eq!(lines(bad), ["crates/turn/src/a.rs:4"]);
    }

    #[test]
    fn one_arm_and_the_rest_is_an_if_let() {
        assert_eq!(
            lines("match b {\n  Block::Text(t) => Some(t),\n  _ => None,\n}"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_pair_that_begins_with_our_enum_is_found() {
        let bad = "match (phase, input) {\n  (Phase::Idle, None) => go(),\n  (Phase::Idle, Some(x)) => go(),\n  _ => stop(),\n}";
        assert_eq!(lines(bad), ["crates/turn/src/a.rs:4"]);
    }

    #[test]
    fn strings_numbers_and_json_may_have_one() {
        assert_eq!(
            lines("match name {\n \"a\" => Tool::Bash,\n _ => Tool::None,\n}"),
            Vec::<String>::new()
        );
        assert_eq!(
            lines("match json {\n Value::Null => 1,\n _ => 2,\n}"),
            Vec::<String>::new()
        );
    }
}
