//! Replacing the one place where a text stands, and the hunk that shows it (wire.md §6.3).

use super::{EditFailure, EditOutcome};

/// Lines shown on each side of a change (wire.md §6.3).
const CONTEXT_LINES: usize = 3;

/// The changed text, and the hunk.
pub fn replace(path: &str, text: &str, old_str: &str, new_str: &str) -> Result<(String, EditOutcome), EditFailure> {
    if old_str.is_empty() {
        return Err(EditFailure::invalid("old_str is empty"));
    }
    if old_str == new_str {
        return Err(EditFailure::invalid("old_str and new_str are the same"));
    }
    let Some(at) = text.find(old_str) else {
        return Err(EditFailure::invalid(format!("old_str was not found in {path}")));
    };
    let places = text.matches(old_str).count();
    // A place that overlaps the first is a second place all the same: which one is meant is not clear.
    let after_first = at + text[at..].chars().next().map_or(1, char::len_utf8);
    if places > 1 || text[after_first..].contains(old_str) {
        let places = places.max(2);
        return Err(EditFailure::invalid(format!(
            "old_str was found {places} times in {path}; it must be unique, give more of the text around it"
        )));
    }
    let changed = format!("{}{new_str}{}", &text[..at], &text[at + old_str.len()..]);
    let hunk = hunk(text, &changed);
    Ok((changed, hunk))
}

/// The lines of a text, each with its end, so that a lost last line end counts as a change.
fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// One hunk over everything that differs.
fn hunk(old: &str, new: &str) -> EditOutcome {
    let (old, new) = (lines(old), lines(new));
    let same_before = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let shorter = old.len().min(new.len());
    let same_behind =
        old.iter().rev().zip(new.iter().rev()).take(shorter - same_before).take_while(|(a, b)| a == b).count();
    let first = same_before.saturating_sub(CONTEXT_LINES);
    let behind = same_behind.min(CONTEXT_LINES);
    let (old_end, new_end) = (old.len() - same_behind, new.len() - same_behind);
    let marked = |mark: char, lines: &[&str]| -> Vec<String> {
        lines.iter().map(|line| format!("{mark}{}", line.strip_suffix('\n').unwrap_or(line))).collect()
    };
    let shown = [
        marked(' ', &old[first..same_before]),
        marked('-', &old[same_before..old_end]),
        marked('+', &new[same_before..new_end]),
        marked(' ', &old[old_end..old_end + behind]),
    ]
    .concat();
    let (old_lines, new_lines) = (old_end + behind - first, new_end + behind - first);
    // As diff(1) counts: a side without lines begins at the line before.
    let start = |lines: usize| (if lines == 0 { first } else { first + 1 }) as u64;
    EditOutcome::StrReplace {
        old_start: start(old_lines),
        old_lines: old_lines as u64,
        new_start: start(new_lines),
        new_lines: new_lines as u64,
        lines: shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(old_start: u64, old_lines: u64, new_start: u64, new_lines: u64, lines: &[&str]) -> EditOutcome {
        let lines = lines.iter().map(ToString::to_string).collect();
        EditOutcome::StrReplace { old_start, old_lines, new_start, new_lines, lines }
    }

    #[test]
    fn hunks_have_three_lines_of_context() {
        let cases = [
            (
                "#\n#\n#\nimport os\n\ndef f():\n    x = 1\n    return x\n\nf()\n#\n",
                "x = 1",
                "x = 2",
                shown(
                    4,
                    7,
                    4,
                    7,
                    &[" import os", " ", " def f():", "-    x = 1", "+    x = 2", "     return x", " ", " f()"],
                ),
            ),
            ("one", "one", "two", shown(1, 1, 1, 1, &["-one", "+two"])),
            ("one\n", "one\n", "", shown(1, 1, 0, 0, &["-one"])),
            ("a\nb\nc\nd\ne\n", "a\n", "", shown(1, 4, 1, 3, &["-a", " b", " c", " d"])),
            ("a\nb\n", "b\n", "b\nc\nd\n", shown(1, 2, 1, 4, &[" a", " b", "+c", "+d"])),
            ("a\nb\nc\n", "a\nb", "x", shown(1, 3, 1, 2, &["-a", "-b", "+x", " c"])),
            ("a\nb", "b", "b\n", shown(1, 2, 1, 2, &[" a", "-b", "+b"])),
            ("a\r\nb\r\n", "b", "c", shown(1, 2, 1, 2, &[" a\r", "-b\r", "+c\r"])),
            ("x\nx\ny\n", "x\ny", "x\nx\ny", shown(1, 3, 1, 4, &[" x", " x", "+x", " y"])),
        ];
        for (text, old_str, new_str, hunk) in cases {
            let replaced = replace("f", text, old_str, new_str).map(|(_, hunk)| hunk);
            assert_eq!(replaced, Ok(hunk), "{text:?} {old_str:?} {new_str:?}");
        }
    }

    #[test]
    fn what_is_not_one_place_is_said() {
        let cases = [
            ("a", "", "b", "old_str is empty"),
            ("a", "a", "a", "old_str and new_str are the same"),
            ("a", "b", "c", "old_str was not found in f"),
            ("aba", "a", "c", "old_str was found 2 times in f; it must be unique, give more of the text around it"),
            ("ééé", "éé", "c", "old_str was found 2 times in f; it must be unique, give more of the text around it"),
        ];
        for (text, old_str, new_str, message) in cases {
            assert_eq!(replace("f", text, old_str, new_str), Err(EditFailure::invalid(message)), "{text:?}");
        }
    }

    /// Applies a hunk to the lines of the old text, checking every line it shows of it.
    fn applied(old: &str, hunk: &EditOutcome) -> Vec<String> {
        let EditOutcome::StrReplace { old_start, old_lines, new_start, new_lines, lines } = hunk else {
            panic!("a hunk")
        };
        let old: Vec<_> = old.lines().collect();
        let mut at = usize::try_from(*old_start).expect("small") - usize::from(*old_lines > 0);
        let mut new: Vec<String> = old[..at].iter().map(ToString::to_string).collect();
        let before = new.len();
        assert_eq!(*new_start, before as u64 + u64::from(*new_lines > 0));
        let (mut taken, mut given) = (0, 0);
        for line in lines {
            let (mark, text) = line.split_at(1);
            if mark != "+" {
                assert_eq!(old[at], text);
                (at, taken) = (at + 1, taken + 1);
            }
            if mark != "-" {
                new.push(text.to_owned());
                given += 1;
            }
        }
        assert_eq!((taken, given), (*old_lines, *new_lines));
        new.extend(old[at..].iter().map(ToString::to_string));
        new
    }

    proptest! {
        #[test]
        fn a_hunk_turns_the_old_lines_into_the_new(text in "[ab\n]{0,40}", old_str in "[ab\n]{1,6}", new_str in "[ab\n]{0,6}") {
            if let Ok((changed, hunk)) = replace("f", &text, &old_str, &new_str) {
                prop_assert_eq!(text.matches(&old_str).count(), 1);
                prop_assert_eq!(&changed, &text.replace(&old_str, &new_str));
                prop_assert_eq!(applied(&text, &hunk), changed.lines().map(str::to_owned).collect::<Vec<_>>());
            }
        }

        #[test]
        fn no_text_and_no_edit_panics(text in ".*", old_str in ".*", new_str in ".*") {
            let _any = replace("f", &text, &old_str, &new_str);
        }
    }
}
