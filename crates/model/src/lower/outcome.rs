//! Results of this server's tools as text for the model (wire.md §6).
//!
//! The model never sees the list of captured files (wire.md §6.2). Results that a client replays may be another server's or
//! another year's: what is not known is handed on as compact JSON.

use std::fmt::Write as _;

use belljar_wire::block::ResultBody;
use serde_json::{Map, Value};

/// A result, readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// For the model.
    pub text: String,
    /// The tool itself failed; code that ended badly is no failure of the tool.
    pub is_error: bool,
}

impl Rendered {
    fn good(text: String) -> Self {
        Self { text, is_error: false }
    }
}

/// Renders the body of a result block.
pub fn render(body: &ResultBody) -> Rendered {
    let made;
    let value = match body {
        ResultBody::Replayed(value) => value,
        ResultBody::Made(content) => {
            made = serde_json::to_value(content).unwrap_or(Value::Null);
            &made
        }
    };
    let known = value.as_object().and_then(render_known);
    known.unwrap_or_else(|| Rendered::good(value.to_string()))
}

/// None when the shape is not one of ours.
fn render_known(result: &Map<String, Value>) -> Option<Rendered> {
    let tag = result.get("type")?.as_str()?;
    match tag {
        "code_execution_result" | "bash_code_execution_result" => ended(result, "stdout"),
        "encrypted_code_execution_result" => encrypted(result),
        "text_editor_code_execution_view_result" => viewed(result),
        "text_editor_code_execution_create_result" => created(result),
        "text_editor_code_execution_str_replace_result" => replaced(result),
        "code_execution_tool_result_error"
        | "bash_code_execution_tool_result_error"
        | "text_editor_code_execution_tool_result_error" => failed(result),
        _ => None,
    }
}

fn text<'a>(result: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    result.get(key)?.as_str()
}

fn ended(result: &Map<String, Value>, stdout_key: &str) -> Option<Rendered> {
    let stdout = text(result, stdout_key)?;
    let stderr = text(result, "stderr")?;
    let return_code = result.get("return_code")?.as_i64()?;
    Some(Rendered::good(streams(stdout, stderr, return_code)))
}

/// Standard output as it is; what is worth a word besides, under a heading.
fn streams(stdout: &str, stderr: &str, return_code: i64) -> String {
    let mut out = stdout.to_owned();
    if !stderr.is_empty() {
        end_line(&mut out);
        out.push_str("[stderr]\n");
        out.push_str(stderr);
    }
    if return_code != 0 {
        end_line(&mut out);
        let _infallible = write!(out, "[return code {return_code}]");
    }
    if out.is_empty() {
        out.push_str("[no output; return code 0]");
    }
    out
}

fn end_line(out: &mut String) {
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
}

/// Another server's ciphertext (wire.md §14): only that server can read it.
fn encrypted(result: &Map<String, Value>) -> Option<Rendered> {
    text(result, "encrypted_stdout")?;
    let stderr = text(result, "stderr")?;
    let return_code = result.get("return_code")?.as_i64()?;
    let note = "[the standard output of this call is encrypted and cannot be read here]";
    Some(Rendered::good(streams(note, stderr, return_code)))
}

fn viewed(result: &Map<String, Value>) -> Option<Rendered> {
    let content = text(result, "content")?;
    let file_type = text(result, "file_type")?;
    if file_type != "text" {
        return Some(Rendered::good(format!("[a file of type {file_type}; it cannot be shown as text]")));
    }
    let number = |key: &str| result.get(key).and_then(Value::as_u64);
    let (lines, first, total) = (number("num_lines"), number("start_line"), number("total_lines"));
    if content.is_empty() && total.unwrap_or(0) == 0 {
        return Some(Rendered::good("[the file is empty]".to_owned()));
    }
    match (lines, first, total) {
        (Some(lines), Some(first), Some(total)) if lines < total => {
            let last = first.saturating_add(lines).saturating_sub(1);
            Some(Rendered::good(format!("[lines {first} to {last} of {total}]\n{content}")))
        }
        _ => Some(Rendered::good(content.to_owned())),
    }
}

fn created(result: &Map<String, Value>) -> Option<Rendered> {
    let said = if result.get("is_file_update")?.as_bool()? {
        "The file was there and has been overwritten."
    } else {
        "The file has been created."
    };
    Some(Rendered::good(said.to_owned()))
}

fn replaced(result: &Map<String, Value>) -> Option<Rendered> {
    let mut out = "The file has been edited.".to_owned();
    let number = |key: &str| result.get(key).and_then(Value::as_u64);
    if let (Some(old_start), Some(old_lines), Some(new_start), Some(new_lines)) =
        (number("old_start"), number("old_lines"), number("new_start"), number("new_lines"))
    {
        let _infallible = write!(out, "\n@@ -{old_start},{old_lines} +{new_start},{new_lines} @@");
    }
    for line in result.get("lines").and_then(Value::as_array).into_iter().flatten() {
        out.push('\n');
        out.push_str(line.as_str()?);
    }
    Some(Rendered::good(out))
}

/// What each code means, for the model (wire.md §6.4, old codes included).
const MEANINGS: [(&str, &str); 9] = [
    ("invalid_tool_input", "the tool's input is not valid"),
    ("unavailable", "the tool is not available right now"),
    ("too_many_requests", "the tool was called too often; try again later"),
    ("execution_time_exceeded", "the call took too long and was ended"),
    ("output_file_too_large", "an output file is larger than a file may be"),
    ("file_not_found", "there is no such file"),
    ("container_expired", "the container has expired; its files are gone"),
    ("string_not_found", "`old_str` does not stand in the file"),
    ("code_execution_exceeded", "the call took too long and was ended"),
];

fn failed(result: &Map<String, Value>) -> Option<Rendered> {
    let code = text(result, "error_code")?;
    let meaning = MEANINGS.iter().find(|(known, _)| *known == code).map(|(_, meaning)| *meaning);
    let message = text(result, "error_message").filter(|message| !message.is_empty());
    let mut out = format!("Error: {code}");
    for part in [meaning, message].into_iter().flatten() {
        out.push_str(": ");
        out.push_str(part);
    }
    Some(Rendered { text: out, is_error: true })
}
