//! File names that may cross the wall.

/// Whether a name can be a file's on the wire (wire.md §9.2) and in a container: 1 to 255 characters, none forbidden,
/// at most 255 bytes (NAME_MAX), not `.` or `..`.
pub fn usable(name: &str) -> bool {
    let characters = name.chars().count();
    (1..=255).contains(&characters)
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c <= '\u{1f}' || "<>:\"|?*\\/".contains(c))
}

#[cfg(test)]
mod tests {
    use super::usable;

    #[test]
    fn names_of_every_kind() {
        let cases = [
            ("chart.png", true),
            ("ключ.txt", true),
            (".hidden", true),
            ("..", false),
            (".", false),
            ("", false),
            ("a/b", false),
            ("a\\b", false),
            ("a\nb", false),
            ("a\0b", false),
            ("a?b", false),
            ("a:b", false),
            ("a\u{7f}b", true),
        ];
        for (name, good) in cases {
            assert_eq!(usable(name), good, "{name:?}");
        }
        assert!(usable(&"x".repeat(255)));
        assert!(!usable(&"x".repeat(256)));
        assert!(!usable(&"é".repeat(128)));
    }
}
