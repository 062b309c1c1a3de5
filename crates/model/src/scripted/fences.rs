//! Fenced code in a message, by CommonMark's rules for fences (spec.commonmark.org, "Fenced code blocks"), indented as deep as
//! lists may put them.

/// What the fixed rule can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Python,
    Bash,
}

impl Language {
    /// By the first word behind the fence.
    fn of(info: &str) -> Option<Self> {
        let word = info.split_whitespace().next()?.to_ascii_lowercase();
        match word.as_str() {
            "python" | "python3" | "py" => Some(Self::Python),
            "bash" | "sh" | "shell" => Some(Self::Bash),
            _ => None,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Bash => "bash",
        }
    }
}

/// A block of code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) language: Language,
    pub(super) source: String,
}

/// The line that begins a block.
struct Fence<'a> {
    indent: usize,
    mark: char,
    length: usize,
    info: &'a str,
    /// Its line ended in CR LF; then the code's line ends are the message's, not the author's.
    carriage_returns: bool,
}

impl<'a> Fence<'a> {
    fn opening(line: &'a str) -> Option<Self> {
        let rest = line.trim_start_matches(' ');
        let mark = rest.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let info = rest.trim_start_matches(mark);
        let length = rest.len() - info.len();
        // Three backticks with another one behind them on the line are code in a sentence.
        if length < 3 || (mark == '`' && info.contains('`')) {
            return None;
        }
        Some(Self { indent: line.len() - rest.len(), mark, length, info, carriage_returns: line.ends_with('\r') })
    }

    fn closed_by(&self, line: &str) -> bool {
        let line = line.trim();
        line.len() >= self.length && line.chars().all(|c| c == self.mark)
    }

    /// A line of the code, without the fence's indentation.
    fn inside<'b>(&self, line: &'b str) -> &'b str {
        let spaces = line.bytes().take(self.indent).take_while(|byte| *byte == b' ');
        let line = &line[spaces.count()..];
        match line.strip_suffix('\r') {
            Some(shorter) if self.carriage_returns => shorter,
            Some(_) | None => line,
        }
    }
}

/// Blocks in a language that can be run, in order; a block that is not closed reaches to the end. Blocks without a character of
/// code are left out.
pub(super) fn code(text: &str) -> Vec<Code> {
    let mut found = Vec::new();
    let mut lines = text.split('\n');
    while let Some(line) = lines.next() {
        let Some(fence) = Fence::opening(line) else {
            continue;
        };
        let mut source = String::new();
        for line in lines.by_ref().take_while(|line| !fence.closed_by(line)) {
            source.push_str(fence.inside(line));
            source.push('\n');
        }
        if let (Some(language), false) = (Language::of(fence.info), source.trim().is_empty()) {
            found.push(Code { language, source });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_where_markdown_has_them() {
        use Language::{Bash, Python};
        let cases: &[(&str, &[(Language, &str)])] = &[
            ("no code", &[]),
            ("```python\nprint(1)\n```", &[(Python, "print(1)\n")]),
            ("```PYTHON title=x\n1\n```\n", &[(Python, "1\n")]),
            ("```py\n1\n```\n```python3\n2\n```", &[(Python, "1\n"), (Python, "2\n")]),
            ("a\n```bash\nls\n```\nb\n~~~sh\nid\n~~~", &[(Bash, "ls\n"), (Bash, "id\n")]),
            ("```rust\nfn main() {}\n```", &[]),
            ("```\nprint(1)\n```", &[]),
            ("```pythonic\n1\n```", &[]),
            ("say ```python x``` please\nls", &[]),
            ("```python x```\n1\n", &[]),
            ("````markdown\n```python\n1\n```\n````", &[]),
            ("````python\ns = '''\n```\n'''\n````", &[(Python, "s = '''\n```\n'''\n")]),
            ("~~~python\n```\n~~~", &[(Python, "```\n")]),
            ("```bash\necho '``` not closed here'\n```", &[(Bash, "echo '``` not closed here'\n")]),
            ("- item\n\n    ```python\n    if 1:\n        x\n  y\n    ```", &[(Python, "if 1:\n    x\ny\n")]),
            ("```python\nprint(1)", &[(Python, "print(1)\n")]),
            ("```python\n```", &[]),
            ("```python\n\n  \n```", &[]),
            ("```bash\r\necho hi\r\n```\r\n", &[(Bash, "echo hi\n")]),
            ("```bash\necho hi\r\n```", &[(Bash, "echo hi\r\n")]),
            ("```python\né\u{0}\u{2028}\n``` \n", &[(Python, "é\u{0}\u{2028}\n")]),
            ("``python\n1\n``", &[]),
        ];
        for (text, expected) in cases {
            let found = code(text);
            let found: Vec<(Language, &str)> = found.iter().map(|code| (code.language, code.source.as_str())).collect();
            assert_eq!(found, *expected, "{text:?}");
        }
    }
}
