//! What a comparison came to: as one JSON document, and as text with one column a server.

use std::fmt::Write as _;

use belljar_wire::difference::{Difference, Side};
use serde_json::{Value, json};

use super::answer::Answer;
use super::prices::Prices;
use super::structure::outline;

/// One request, asked of all.
pub struct Asked {
    /// The request's model and form.
    pub model: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Each server's answer, or why there is none.
    pub answers: Vec<(String, Result<Answer, String>)>,
    /// Differences between the first answer and each of the others, by the other's name.
    pub differences: Vec<(String, Vec<Difference>)>,
}

/// Characters of one column, and of what is shown of one text.
const COLUMN_CHARS: usize = 58;
const TEXT_CHARS_MAX: usize = 2000;

/// The document of `--json`.
pub fn document(asked: &[Asked], prices: &Prices) -> Value {
    let requests: Vec<Value> = asked.iter().map(|asked| of_request(asked, prices)).collect();
    json!({ "prices_of": prices.date, "requests": requests })
}

fn of_request(asked: &Asked, prices: &Prices) -> Value {
    let answers = asked.answers.iter().map(|(name, answer)| match answer {
        Err(error) => json!({ "server": name, "error": error }),
        Ok(answer) => {
            let ms = |time: Option<std::time::Duration>| time.map(|time| time.as_secs_f64() * 1e3);
            let tokens = answer.tokens();
            json!({
                "server": name,
                "status": answer.status,
                "first_event_ms": ms(answer.first_event),
                "total_ms": ms(answer.total),
                "input_tokens": tokens.map(|tokens| tokens.input),
                "output_tokens": tokens.map(|tokens| tokens.output),
                "cache_write_tokens": tokens.map(|tokens| tokens.cache_write),
                "cache_read_tokens": tokens.map(|tokens| tokens.cache_read),
                "cost": tokens.and_then(|tokens| prices.cost(&asked.model, tokens)),
                "message": answer.message(),
            })
        }
    });
    let differences = asked.differences.iter().map(|(name, found)| {
        let found: Vec<Value> = found.iter().map(of_difference).collect();
        json!({ "server": name, "found": found })
    });
    json!({
        "model": asked.model,
        "stream": asked.stream,
        "answers": answers.collect::<Vec<_>>(),
        "differences": differences.collect::<Vec<_>>(),
    })
}

fn of_difference(difference: &Difference) -> Value {
    let side = |side: &Side| match side {
        Side::Absent => json!({ "absent": true }),
        Side::Is(value) => json!({ "value": value }),
        Side::Keys(keys) => json!({ "keys": keys }),
    };
    json!({ "at": difference.at, "left": side(&difference.left), "right": side(&difference.right) })
}

/// The text for people.
pub fn text(asked: &[Asked], prices: &Prices) -> String {
    let mut text = String::new();
    for (index, asked) in asked.iter().enumerate() {
        let form = if asked.stream { "stream" } else { "plain" };
        let _infallible = writeln!(text, "request {} of {}: {form}", index + 1, shown(&asked.model));
        rows(&mut text, asked, prices);
        for (name, found) in &asked.differences {
            let first = asked.answers.first().map_or("", |(name, _)| name.as_str());
            let _infallible = writeln!(text, "shape: {} | {}: {} differences", first, name, found.len());
            for difference in found {
                let _infallible = writeln!(text, "  {}", shown(&difference.to_string()));
            }
        }
        text.push('\n');
    }
    if !prices.date.is_empty() {
        let _infallible = writeln!(text, "prices of {}", shown(&prices.date));
    }
    text
}

type Cell = fn(&Answer, &str, &Prices) -> String;

const ROWS: [(&str, Cell); 8] = [
    ("status", |answer, _, _| answer.status.to_string()),
    ("first event", |answer, _, _| ms(answer.first_event)),
    ("total", |answer, _, _| ms(answer.total)),
    ("tokens in", |answer, _, _| answer.tokens().map_or("-".to_owned(), |tokens| tokens.input.to_string())),
    ("cached", |answer, _, _| {
        let tokens = answer.tokens();
        tokens.map_or("-".to_owned(), |tokens| format!("{} written, {} read", tokens.cache_write, tokens.cache_read))
    }),
    ("tokens out", |answer, _, _| answer.tokens().map_or("-".to_owned(), |tokens| tokens.output.to_string())),
    ("cost", |answer, model, prices| {
        let cost = answer.tokens().and_then(|tokens| prices.cost(model, tokens));
        cost.map_or("-".to_owned(), |cost| format!("{cost:.6}"))
    }),
    ("output", |answer, _, _| output(answer)),
];

fn rows(text: &mut String, asked: &Asked, prices: &Prices) {
    let names: Vec<String> = asked.answers.iter().map(|(name, _)| name.clone()).collect();
    row(text, "", &names);
    for (label, cell) in ROWS {
        let cells = asked.answers.iter().map(|(_, answer)| match answer {
            Ok(answer) => cell(answer, &asked.model, prices),
            Err(error) if label == "status" => format!("no answer: {error}"),
            Err(_) => "-".to_owned(),
        });
        row(text, label, &cells.collect::<Vec<_>>());
    }
}

fn ms(time: Option<std::time::Duration>) -> String {
    time.map_or("-".to_owned(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3))
}

/// What was said and done, a line each.
fn output(answer: &Answer) -> String {
    let message = answer.message();
    if message["type"] == "error" {
        return format!("{}: {}", texts(&message["error"]["type"]), texts(&message["error"]["message"]));
    }
    if !message.is_object() {
        return "no message".to_owned();
    }
    let mut lines: Vec<String> = Vec::new();
    let blocks = message["content"].as_array().into_iter().flatten();
    for (kind, block) in outline(&message).iter().zip(blocks) {
        let said = ["text", "thinking", "input", "content"].iter().find(|key| !block[**key].is_null());
        let said = said.map_or(String::new(), |key| texts(&block[*key]));
        lines.push(format!("[{kind}] {said}"));
    }
    lines.push(format!("({})", texts(&message["stop_reason"])));
    lines.join("\n")
}

fn texts(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What somebody else wrote, for a terminal: no control characters, and not too much.
fn shown(text: &str) -> String {
    let plain = text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c });
    let mut plain: String = plain.collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        plain.push('…');
    }
    plain
}

fn row(text: &mut String, label: &str, cells: &[String]) {
    let columns: Vec<Vec<String>> = cells.iter().map(|cell| wrapped(&shown(cell))).collect();
    let height = columns.iter().map(Vec::len).max().unwrap_or(0);
    for line in 0..height {
        let label = if line == 0 { label } else { "" };
        let _infallible = write!(text, "{label:12}");
        for (at, column) in columns.iter().enumerate() {
            let cell = column.get(line).map_or("", String::as_str);
            let last = at + 1 == columns.len();
            let width = if last { 0 } else { COLUMN_CHARS };
            let _infallible = write!(text, "{}{cell:width$}", if at == 0 { "" } else { "  " });
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let characters: Vec<char> = line.chars().collect();
        lines.extend(characters.chunks(COLUMN_CHARS).map(|part| part.iter().collect::<String>()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_others_do_not_reach_the_terminal() {
        assert_eq!(shown("a\u{1b}[31m\nb\r\u{9b}"), "a\u{fffd}[31m\nb\u{fffd}\u{fffd}");
        assert_eq!(shown(&"a".repeat(TEXT_CHARS_MAX + 1)).chars().count(), TEXT_CHARS_MAX + 1);
    }

    #[test]
    fn columns_stand_side_by_side() {
        let mut text = String::new();
        row(&mut text, "output", &["one\ntwo".to_owned(), "x".repeat(COLUMN_CHARS + 1)]);
        let lines: Vec<&str> = text.lines().collect();
        let right = |line: &str| line.chars().skip(12 + COLUMN_CHARS + 2).collect::<String>();
        assert_eq!((lines.len(), right(lines[0]).len(), right(lines[1]).as_str()), (2, COLUMN_CHARS, "x"));
        assert!(lines[0].starts_with("output      one ") && lines[1].starts_with("            two "));
    }
}
