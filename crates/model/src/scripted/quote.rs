//! What a call came to, told in Markdown.

use belljar_wire::block::ResultBody;
use belljar_wire::read::Brief;

/// Bytes of one output that an answer repeats.
const OUTPUT_BYTES_MAX: usize = 8 << 10;

/// Of those, bytes from the output's end: where errors stand.
const OUTPUT_TAIL_BYTES_MAX: usize = 2 << 10;

/// A result block's content, as far as it is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The code ended.
    Ended {
        return_code: i64,
        stdout: String,
        stderr: String,
        /// Ids of captured files.
        files: Vec<String>,
    },
    /// The tool failed.
    Failed { error_code: String },
    /// Nothing is known of it.
    Unknown,
}

impl Outcome {
    /// Of a result made here or replayed: both are read as JSON, which is what a replay is.
    pub(super) fn of(result: Option<&ResultBody>) -> Self {
        let Some(value) = result.and_then(|body| serde_json::to_value(body).ok()) else {
            return Self::Unknown;
        };
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        if let Some(code) = value["error_code"].as_str() {
            return Self::Failed { error_code: code.to_owned() };
        }
        let Some(return_code) = value["return_code"].as_i64() else {
            return Self::Unknown;
        };
        let files = value["content"].as_array().into_iter().flatten();
        let files = files.filter_map(|file| file["file_id"].as_str().map(str::to_owned));
        Self::Ended { return_code, stdout: text("stdout"), stderr: text("stderr"), files: files.collect() }
    }

    /// The end of a sentence, and the output below it.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Unknown => "there is no result.".to_owned(),
            Self::Failed { error_code } => {
                format!("the tool failed: {}.", inline(&Brief(error_code).to_string()))
            }
            Self::Ended { return_code, stdout, stderr, files } => {
                let mut told = format!("return code {return_code}.");
                if stdout.is_empty() && stderr.is_empty() {
                    told.push_str(" It printed nothing.");
                }
                for (name, output) in [("stdout", stdout), ("stderr", stderr)] {
                    if !output.is_empty() {
                        told.push_str(&format!("\n\n{name}:\n{}", fenced(&cut(output))));
                    }
                }
                if !files.is_empty() {
                    let files: Vec<String> = files.iter().map(|id| inline(id)).collect();
                    told.push_str(&format!("\n\nFiles: {}", files.join(", ")));
                }
                told
            }
        }
    }
}

/// A text with its middle left out, should it be long.
fn cut(text: &str) -> String {
    if text.len() <= OUTPUT_BYTES_MAX {
        return text.to_owned();
    }
    let head = text.floor_char_boundary(OUTPUT_BYTES_MAX - OUTPUT_TAIL_BYTES_MAX);
    let tail = text.ceil_char_boundary(text.len() - OUTPUT_TAIL_BYTES_MAX);
    format!("{}\n[… {} bytes left out …]\n{}", &text[..head], tail - head, &text[tail..])
}

/// A block of code whose fence nothing in the text closes.
fn fenced(text: &str) -> String {
    let fence = "`".repeat(longest_run(text).max(2) + 1);
    let line_end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{fence}text\n{text}{line_end}{fence}")
}

/// Code in a sentence.
pub(super) fn inline(text: &str) -> String {
    let fence = "`".repeat(longest_run(text) + 1);
    let space = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{space}{text}{space}{fence}")
}

fn longest_run(text: &str) -> usize {
    let runs = text.split(|c| c != '`').map(str::len);
    runs.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(content: Value) -> String {
        Outcome::of(Some(&ResultBody::Replayed(content))).told()
    }

    #[test]
    fn outcomes_are_told() {
        let ended = |stdout: &str, stderr: &str, code: i64, content: Value| json!({"type": "bash_code_execution_result", "stdout": stdout, "stderr": stderr, "return_code": code, "content": content});
        let cases = [
            (ended("", "", 0, json!([])), "return code 0. It printed nothing."),
            (ended("a\n", "", 0, json!([])), "return code 0.\n\nstdout:\n```text\na\n```"),
            (ended("a", "b\n", 3, json!([])), "return code 3.\n\nstdout:\n```text\na\n```\n\nstderr:\n```text\nb\n```"),
            (ended("```\nx\n````\n", "", 0, json!([])), "return code 0.\n\nstdout:\n`````text\n```\nx\n````\n`````"),
            (
                ended("", "", 0, json!([{"type": "bash_code_execution_output", "file_id": "file_1"}])),
                "return code 0. It printed nothing.\n\nFiles: `file_1`",
            ),
            (
                json!({"type": "bash_code_execution_tool_result_error", "error_code": "execution_time_exceeded"}),
                "the tool failed: `execution_time_exceeded`.",
            ),
            (json!({"type": "something_new"}), "there is no result."),
        ];
        for (content, expected) in cases {
            assert_eq!(told(content), expected);
        }
        assert_eq!(Outcome::of(None).told(), "there is no result.");
    }

    #[test]
    fn long_output_loses_its_middle() {
        let short = "x".repeat(OUTPUT_BYTES_MAX);
        assert_eq!(cut(&short), short);
        // Two bytes a character: both ends fall inside of one.
        let long = format!("a{}", "é".repeat(OUTPUT_BYTES_MAX));
        let head = format!("a{}", "é".repeat(3071));
        let tail = "é".repeat(1024);
        let left_out = long.len() - head.len() - tail.len();
        assert_eq!(cut(&long), format!("{head}\n[… {left_out} bytes left out …]\n{tail}"));
    }
}
