//! The editor's paths: variables and the home directory, as a shell would write them (wire.md §5).

use super::EditFailure;
use crate::environment::{HOME, INPUT_DIRECTORY};

/// path_resolution(7): PATH_MAX with its NUL.
const PATH_BYTES_MAX: usize = 4095;

/// The path with `~`, `$HOME` and `$INPUT_DIR` replaced; relative ones stay relative. A dollar sign that begins no
/// name stands for itself.
pub fn expand(path: &str) -> Result<String, EditFailure> {
    if path.is_empty() {
        return Err(EditFailure::invalid("the path is empty"));
    }
    if path.contains('\0') {
        return Err(EditFailure::invalid("the path holds a NUL character"));
    }
    let mut expanded = String::new();
    let mut rest = path;
    if let Some(behind) = path.strip_prefix('~')
        && (behind.is_empty() || behind.starts_with('/'))
    {
        expanded.push_str(HOME);
        rest = behind;
    }
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        match variable(&rest[at + 1..]) {
            Some((name, behind)) => {
                expanded.push_str(value(name)?);
                rest = behind;
            }
            None => {
                expanded.push('$');
                rest = &rest[at + 1..];
            }
        }
    }
    expanded.push_str(rest);
    if expanded.len() > PATH_BYTES_MAX {
        return Err(EditFailure::invalid("the path is too long"));
    }
    Ok(expanded)
}

/// The name at the start of what follows a dollar sign, braced or not, and what follows the name.
fn variable(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('{').unwrap_or(text);
    let length = inner.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    let (name, behind) = inner.split_at(length);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if inner.len() == text.len() { Some((name, behind)) } else { behind.strip_prefix('}').map(|behind| (name, behind)) }
}

fn value(name: &str) -> Result<&'static str, EditFailure> {
    match name {
        "HOME" => Ok(HOME),
        "INPUT_DIR" => Ok(INPUT_DIRECTORY),
        "OUTPUT_DIR" => Err(EditFailure::invalid(
            "$OUTPUT_DIR is new for each shell command and cannot be used in a path of the text editor",
        )),
        _ => Err(EditFailure::invalid(format!("the path names ${name}, which is not set"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_expanded_as_a_shell_would() {
        let cases = [
            ("/tmp/x.py", "/tmp/x.py"),
            ("config.json", "config.json"),
            ("$INPUT_DIR/sample.csv", "/files/input/sample.csv"),
            ("${INPUT_DIR}/a b", "/files/input/a b"),
            ("~", "/root"),
            ("~/.bashrc", "/root/.bashrc"),
            ("~user/x", "~user/x"),
            ("a~", "a~"),
            ("$HOME/$HOME", "/root//root"),
            ("price$", "price$"),
            ("$5", "$5"),
            ("a$-b", "a$-b"),
            ("${INPUT_DIR", "${INPUT_DIR"),
            ("${}", "${}"),
            ("$$HOME", "$/root"),
        ];
        for (path, expanded) in cases {
            assert_eq!(expand(path).as_deref(), Ok(expanded), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_a_path_is_said() {
        let long = "x".repeat(PATH_BYTES_MAX + 1);
        let cases = [
            ("", "the path is empty"),
            ("a\0b", "the path holds a NUL character"),
            ("$NOPE/x", "the path names $NOPE, which is not set"),
            ("$INPUT_DIRX", "the path names $INPUT_DIRX, which is not set"),
            (
                "$OUTPUT_DIR/x",
                "$OUTPUT_DIR is new for each shell command and cannot be used in a path of the text editor",
            ),
            (long.as_str(), "the path is too long"),
        ];
        for (path, message) in cases {
            assert_eq!(expand(path), Err(EditFailure::invalid(message)), "{path}");
        }
    }
}
