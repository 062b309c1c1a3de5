//! Fenced code in a text (CommonMark 0.31, section 4.5).

/// What runs a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Python,
    Bash,
}

impl Language {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Bash => "bash",
        }
    }

    fn of(info: &str) -> Option<Self> {
        let word = info.split_whitespace().next()?.to_ascii_lowercase();
        match word.as_str() {
            "python" | "python3" | "py" => Some(Self::Python),
            "bash" | "sh" | "shell" => Some(Self::Bash),
            _ => None,
        }
    }
}

/// One fenced block of a language that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fenced {
    pub(super) language: Language,
    pub(super) code: String,
}

struct Fence {
    mark: char,
    length: usize,
    indent: usize,
}

/// The `python` and `bash` blocks of a text, in order. A fence that is never closed runs to the end.
pub(super) fn fenced_code(text: &str) -> Vec<Fenced> {
    let mut blocks = Vec::new();
    let mut open: Option<(Fence, Option<Language>, String)> = None;
    for line in text.split_inclusive('\n') {
        match open.take() {
            None => {
                open = opening(line).map(|(fence, info)| (fence, Language::of(info), String::new()));
            }
            Some((fence, language, code)) if closes(&fence, line) => {
                blocks.extend(language.map(|language| Fenced { language, code }));
            }
            Some((fence, language, mut code)) => {
                code.push_str(unindented(line, fence.indent));
                open = Some((fence, language, code));
            }
        }
    }
    if let Some((_, Some(language), code)) = open {
        blocks.push(Fenced { language, code });
    }
    blocks
}

fn opening(line: &str) -> Option<(Fence, &str)> {
    let body = line.trim_start_matches(' ');
    let indent = line.len() - body.len();
    let mark = body.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
    let info = body.trim_start_matches(mark);
    let length = body.len() - info.len();
    let spoiled = mark == '`' && info.contains('`');
    if indent > 3 || length < 3 || spoiled {
        return None;
    }
    Some((Fence { mark, length, indent }, info.trim()))
}

fn closes(fence: &Fence, line: &str) -> bool {
    let body = line.trim_start_matches(' ');
    let rest = body.trim_start_matches(fence.mark);
    line.len() - body.len() <= 3 && body.len() - rest.len() >= fence.length && rest.trim().is_empty()
}

/// The line without as many leading spaces as the fence had.
fn unindented(line: &str, indent: usize) -> &str {
    let spaces = line.len() - line.trim_start_matches(' ').len();
    &line[spaces.min(indent)..]
}

/// A text between fences that it cannot close.
pub(super) fn fence(text: &str) -> String {
    let runs = text.split(|c| c != '`').map(str::len);
    let marks = "`".repeat(runs.max().unwrap_or(0).max(2) + 1);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{marks}\n{text}{end}{marks}")
}

#[cfg(test)]
mod tests {
    use super::Language::{Bash, Python};
    use super::*;

    #[test]
    fn fences_as_data() {
        let cases: &[(&str, &[(Language, &str)])] = &[
            ("no code", &[]),
            ("```python\nprint(1)\n```", &[(Python, "print(1)\n")]),
            ("```\nprint(1)\n```", &[]),
            ("```json\n{}\n```\n~~~sh\nls\n~~~\n", &[(Bash, "ls\n")]),
            ("a\n```py\n1\n```\nb\n```bash extra\n2\n```\n", &[(Python, "1\n"), (Bash, "2\n")]),
            ("````python\n```\n````\n", &[(Python, "```\n")]),
            ("```python\n~~~\n", &[(Python, "~~~\n")]),
            ("  ```python\n  if x:\n    y\n  ```\n", &[(Python, "if x:\n  y\n")]),
            ("    ```python\n1\n", &[]),
            ("```Python\r\n1\r\n```\r\n", &[(Python, "1\r\n")]),
            ("```python\n```", &[(Python, "")]),
            ("``` python `x`\n1\n", &[]),
        ];
        for (text, expected) in cases {
            let found = fenced_code(text);
            let found: Vec<(Language, &str)> =
                found.iter().map(|block| (block.language, block.code.as_str())).collect();
            assert_eq!(&found, expected, "{text:?}");
        }
    }

    #[test]
    fn a_quote_cannot_be_closed_from_inside() {
        assert_eq!(fence("a"), "```\na\n```");
        assert_eq!(fence("```\n"), "````\n```\n````");
    }
}
