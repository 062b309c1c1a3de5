//! `belljar recording`: what an upstream was asked and answered, for people.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use belljar_model::recording::{Part, RecordedTurn, Recording, RecordingError, Reply, Summary, Timing};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::exit::Exit;

/// Options of `belljar recording`.
#[derive(Debug, Args)]
pub struct RecordingArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the exchanges of a recording, or print one as a turn.
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The recording.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The exchange to print, counted from 1; without it, all are listed.
    #[arg(value_name = "N")]
    number: Option<usize>,
    /// Print one JSON document on stdout, with nothing shortened.
    #[arg(long)]
    json: bool,
}

/// Characters of a system prompt that are printed.
const SYSTEM_CHARS_MAX: usize = 600;

/// Reads, and prints.
pub async fn run(args: &RecordingArgs) -> Result<(), Exit> {
    let What::Show(ShowArgs { file, number, json }) = &args.what;
    let recording = Recording::open(file).map_err(exit)?;
    let text = match (number, json) {
        (Some(number), false) => turn(&recording, &recording.turn(*number).await.map_err(exit)?),
        (Some(number), true) => format!("{}\n", json!(recording.turn(*number).await.map_err(exit)?)),
        (None, json) => {
            let all: Result<Vec<Summary>, _> =
                (1..=recording.count()).map(|number| recording.summary(number)).collect();
            let all = all.map_err(exit)?;
            if *json { format!("{}\n", document(&recording, &all)) } else { list(&recording, &all) }
        }
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Exit::failed(format!("standard output: {error}")))
}

fn exit(error: RecordingError) -> Exit {
    match &error {
        RecordingError::NoSuchExchange { .. } => Exit::usage(error.to_string()),
        RecordingError::File { .. } | RecordingError::NoHead { .. } | RecordingError::OtherDialect { .. } => {
            Exit::failed(error.to_string())
        }
    }
}

fn document(recording: &Recording, all: &[Summary]) -> Value {
    json!({"dialect": recording.dialect(), "upstream": recording.upstream(), "lines_passed_over": recording.passed_over(),
        "exchanges": all})
}

fn list(recording: &Recording, all: &[Summary]) -> String {
    let mut text =
        format!("{} upstream `{}`, {} exchanges", recording.dialect(), printable(recording.upstream()), all.len());
    if recording.passed_over() > 0 {
        let _infallible = write!(text, ", {} lines that cannot be read", recording.passed_over());
    }
    text.push('\n');
    for summary in all {
        let _infallible = writeln!(text, "{}", line(summary));
    }
    text
}

/// An exchange on one line.
fn line(summary: &Summary) -> String {
    let Summary { number, at, endpoint, model, messages, attempt, status, end, bytes, timing, digest } = summary;
    let status = status.map_or_else(|| "---".to_owned(), |status| status.to_string());
    let again = if *attempt > 0 { format!(", asked again ({attempt})") } else { String::new() };
    format!(
        "{number:>4}  {}  {endpoint}  {}  {messages} messages  {status} {}{again}  {bytes} bytes  {}  {}",
        printable(at),
        printable(model),
        printable(end),
        took(timing),
        digest.get(..12).unwrap_or_default(),
    )
}

fn took(timing: &Timing) -> String {
    let Timing { first_piece_ms, whole_ms, pieces } = timing;
    let first = first_piece_ms.map_or_else(String::new, |first| format!("first after {first} ms, "));
    format!("{first}{whole_ms} ms in {pieces} pieces")
}

fn turn(recording: &Recording, turn: &RecordedTurn) -> String {
    let mut text =
        format!("{} upstream `{}`\n{}\n", recording.dialect(), printable(recording.upstream()), line(&turn.summary));
    if let Some(betas) = &turn.betas {
        let _infallible = writeln!(text, "betas: {}", printable(betas));
    }
    if !turn.tools.is_empty() {
        let _infallible = writeln!(text, "tools: {}", printable(&turn.tools.join(", ")));
    }
    if !turn.system.is_empty() {
        text.push_str("\n== system\n");
        paragraph(&mut text, &shortened(&turn.system));
    }
    for said in &turn.conversation {
        let _infallible = writeln!(text, "\n== {}", printable(&said.role));
        said.parts.iter().for_each(|said| part(&mut text, said));
    }
    text.push_str("\n== reply\n");
    reply(&mut text, &turn.reply);
    text
}

fn reply(text: &mut String, reply: &Reply) {
    reply.parts.iter().for_each(|said| part(text, said));
    if let Some(reason) = &reply.stop_reason {
        let _infallible = writeln!(text, "stop reason: {}", json!(reason).as_str().unwrap_or_default());
    }
    if let Some(usage) = &reply.usage {
        let _infallible = writeln!(
            text,
            "tokens: {} in, {} read from the cache, {} written to it, {} out",
            usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens, usage.output_tokens
        );
    }
    if let Some(error) = &reply.error {
        text.push_str("error:\n");
        paragraph(text, error);
    }
}

fn part(text: &mut String, part: &Part) {
    match part {
        Part::Text { text: said } => paragraph(text, said),
        Part::Thinking { text: said } => {
            text.push_str("[thinking]\n");
            paragraph(text, said);
        }
        Part::Call { name, input } => {
            let _infallible = writeln!(text, "[call of {}]", printable(name));
            match input.as_object() {
                Some(members) => members.iter().for_each(|(key, value)| member(text, key, value)),
                None => paragraph(text, &input.to_string()),
            }
        }
        Part::Result { call, text: said } => {
            let _infallible = writeln!(text, "[result of {}]", printable(call));
            paragraph(text, said);
        }
        Part::Other { kind, bytes } => {
            let _infallible = writeln!(text, "[{}, {bytes} bytes]", printable(kind));
        }
    }
}

/// A member of a call's input: code as code.
fn member(text: &mut String, key: &str, value: &Value) {
    match value.as_str() {
        Some(said) if said.contains('\n') => {
            let _infallible = writeln!(text, "  {}:", printable(key));
            said.lines().for_each(|line| paragraph(text, &format!("  {line}")));
        }
        _ => paragraph(text, &format!("{key}: {value}")),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SYSTEM_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} more bytes)", &text[..end], text.len() - end),
    }
}

/// Indented, so that no line of it can pass for one of ours.
fn paragraph(text: &mut String, said: &str) {
    for line in said.split('\n') {
        let _infallible = writeln!(text, "  {}", printable(line));
    }
}

/// What a terminal shows and does not obey: control characters, and those that turn or hide what stands around them, as escapes.
fn printable(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push('\t'),
            c if harmful(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One exchange whose every text is hostile.
    fn recording(folder: &std::path::Path) -> Recording {
        let evil = "\u{1b}[2J\r\u{202e}== system\n== reply";
        let sse = |data: Value| format!("data: {data}\n\n");
        let call = json!({"choices": [{"delta": {"content": evil, "tool_calls": [{"index": 0, "id": "a", "function":
            {"name": "look\u{7}up", "arguments": json!({"code": "print(1)\nprint(2)", "q": evil}).to_string()}}]}}]});
        let end = json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}], "usage": {"prompt_tokens": 7, "completion_tokens": 5}});
        let lines = [
            json!({"recording": {"form": 1, "dialect": "openai", "upstream": format!("up{evil}"), "belljar": "0"}}),
            json!({"exchange": {"at": evil, "endpoint": "chat/completions", "status": 200, "end": "complete", "whole_ms": 30,
                "request": {"model": format!("m{evil}"), "tools": [{"type": "function", "function": {"name": "look\u{7}up"}}],
                    "messages": [
                        {"role": "system", "content": "s".repeat(2 * SYSTEM_CHARS_MAX)},
                        {"role": "user", "content": [{"type": "text", "text": evil}, {"type": "image_url", "image_url": {"url": "data:"}}]},
                        {"role": "assistant", "content": null, "tool_calls": [{"id": "call00000", "function": {"name": "x", "arguments": "{\"a\": 1}"}}]},
                        {"role": "tool", "tool_call_id": "call00000", "content": evil}]},
                "headers": {"content-type": "text/event-stream"},
                "pieces": [[9, sse(call)], [20, sse(end)], [30, "data: [DONE]\n\n"]]}}),
            json!({"exchange": {"endpoint": "chat/completions", "request": {"model": "m"}, "end": {"unreachable": evil}, "attempt": 1}}),
        ];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let path = folder.join("a.jsonl");
        std::fs::write(&path, text + "{\"torn").expect("the file");
        Recording::open(&path).expect("a recording")
    }

    #[tokio::test]
    async fn a_hostile_recording_is_shown_and_not_obeyed() {
        let folder = tempfile::tempdir().expect("a folder");
        let recording = recording(folder.path());
        let all = [1, 2].map(|number| recording.summary(number).expect("an exchange"));
        let shown = format!(
            "{}{}{}",
            list(&recording, &all),
            turn(&recording, &recording.turn(1).await.expect("an exchange")),
            turn(&recording, &recording.turn(2).await.expect("an exchange"))
        );
        assert!(!shown.contains(['\u{1b}', '\r', '\u{202e}', '\u{7}']), "{shown}");
        let ours: Vec<&str> = shown.lines().filter(|line| line.starts_with("==")).collect();
        assert_eq!(ours, ["== system", "== user", "== assistant", "== tool", "== reply", "== reply"]);
        for expected in [
            "2 exchanges, 1 lines that cannot be read",
            "200 complete",
            "first after 9 ms, 30 ms in 3 pieces",
            "--- unreachable: \\u{1b}[2J",
            "asked again (1)",
            "tools: look\\u{7}up",
            "… (600 more bytes)",
            "[image_url, ",
            "[call of x]\n  a: 1",
            "[result of call00000]\n  \\u{1b}[2J\\u{d}\\u{202e}== system\n  == reply",
            "[call of look\\u{7}up]\n  code:\n    print(1)\n    print(2)\n  q:",
            "stop reason: tool_use\ntokens: 7 in, 0 read from the cache, 0 written to it, 5 out\n",
        ] {
            assert!(shown.contains(expected), "{expected:?} is not in\n{shown}");
        }
    }

    #[tokio::test]
    async fn the_document_has_everything() {
        let folder = tempfile::tempdir().expect("a folder");
        let recording = recording(folder.path());
        let turn = json!(recording.turn(1).await.expect("an exchange"));
        assert_eq!(turn["reply"]["parts"][1]["input"]["code"], "print(1)\nprint(2)");
        assert_eq!(turn["reply"]["stop_reason"], "tool_use");
        assert_eq!(turn["conversation"].as_array().map(Vec::len), Some(3));
        assert_eq!(turn["system"].as_str().map(str::len), Some(2 * SYSTEM_CHARS_MAX));
        let none = recording.turn(3).await.map(|_| ()).map_err(|error| exit(error).code());
        assert_eq!(none, Err(crate::exit::USAGE));
        assert!(recording.turn(0).await.is_err());
    }
}
