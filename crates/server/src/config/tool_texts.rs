//! `tool_texts`: the name of a set of texts, or a file of the operator's own.

use std::path::Path;

use belljar_turn::{TextPlace, ToolTexts};

/// Where each text stands in a file: its table, its key, and what it is.
const PLACES: [(&str, &str, TextPlace); TextPlace::ALL.len()] = [
    ("", "system", TextPlace::System),
    ("", "time_limit", TextPlace::TimeLimit),
    ("bash_code_execution", "description", TextPlace::Bash),
    ("bash_code_execution", "tools", TextPlace::BashTools),
    ("text_editor_code_execution", "description", TextPlace::Editor),
    ("code_execution", "description", TextPlace::Python),
    ("code_execution", "description_fresh", TextPlace::PythonFresh),
    ("code_execution", "tools", TextPlace::PythonTools),
];

/// The set that the configuration names.
///
/// # Errors
/// What is wrong, with the file and the key.
pub(super) fn read(given: &str) -> Result<ToolTexts, String> {
    if let Some(set) = ToolTexts::named(given) {
        return Ok(set.clone());
    }
    let path = Path::new(given);
    if !path.is_absolute() {
        let known = ToolTexts::all().map(|set| format!("\"{}\"", set.name)).join(", ");
        return Err(format!("\"{given}\" is none of {known}, and no absolute path of a file"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{given}: {error}"))?;
    parse(given, &text).map_err(|problem| format!("{given}: {problem}"))
}

fn parse(name: &str, text: &str) -> Result<ToolTexts, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut base = ToolTexts::hosted();
    let mut version = None;
    let mut texts = Vec::new();
    for (key, value) in &table {
        match (key.as_str(), value) {
            ("base", toml::Value::String(named)) => {
                base = ToolTexts::named(named).ok_or_else(|| format!("base: there is no set \"{named}\""))?;
            }
            ("version", toml::Value::Integer(number)) => version = u32::try_from(*number).ok(),
            ("base" | "version", _) => return Err(format!("{key}: not of the right type")),
            (_, toml::Value::Table(members)) => {
                if !PLACES.iter().any(|(table, _, _)| table == key) {
                    return Err(unknown("sub-tool", key, PLACES.map(|(table, _, _)| table)));
                }
                for (inner, value) in members {
                    texts.push(said(key, inner, value)?);
                }
            }
            (_, value) => texts.push(said("", key, value)?),
        }
    }
    let version = version.ok_or("version is missing: a number of yours, that grows with each change")?;
    base.with(name.to_owned(), version, texts).map_err(|(place, word)| {
        let (table, key, _) = PLACES.into_iter().find(|(_, _, known)| *known == place).unwrap_or(("", "", place));
        let placeholders: Vec<String> = ToolTexts::placeholders().map(|known| format!("`{{{known}}}`")).collect();
        format!("{}: `{{{word}}}` is none of {}", full(table, key), placeholders.join(", "))
    })
}

/// One text and where it belongs.
fn said(table: &str, key: &str, value: &toml::Value) -> Result<(TextPlace, String), String> {
    let place = PLACES.into_iter().find(|(known, name, _)| (*known, *name) == (table, key));
    let Some((_, _, place)) = place else {
        let known = PLACES.map(|(known, name, _)| if known == table { name } else { "" });
        return Err(unknown("key", &full(table, key), known));
    };
    let text = value.as_str().ok_or_else(|| format!("{}: not a text", full(table, key)))?;
    if text.trim().is_empty() && place != TextPlace::System {
        return Err(format!("{}: empty", full(table, key)));
    }
    Ok((place, text.to_owned()))
}

fn full(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

fn unknown<const N: usize>(what: &str, found: &str, known: [&str; N]) -> String {
    let last = found.rsplit('.').next().unwrap_or_default();
    let scored = known.into_iter().filter(|name| !name.is_empty()).map(|name| (strsim::jaro_winkler(name, last), name));
    let near = scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| format!("; did you mean `{name}`?"));
    format!("unknown {what} `{found}`{}", near.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_operator_are_read() {
        let text = "base = \"plain\"\nversion = 3\nsystem = \"\"\n[bash_code_execution]\ndescription = \"Runs {python}: {\\\"command\\\": \\\"ls\\\"}\"";
        let set = parse("mine", text).expect("good texts");
        assert_eq!((set.name.as_ref(), set.version, set.text(TextPlace::System)), ("mine", 3, ""));
        assert_eq!(set.text(TextPlace::Bash), "Runs {python}: {\"command\": \"ls\"}");
        assert_eq!(set.text(TextPlace::Editor), ToolTexts::plain().text(TextPlace::Editor));
        assert_eq!(read("hosted").as_ref(), Ok(ToolTexts::hosted()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("", "version is missing: a number of yours, that grows with each change"),
            ("version = \"1\"", "version: not of the right type"),
            ("version = 1\nbase = \"best\"", "base: there is no set \"best\""),
            ("version = 1\nsistem = \"x\"", "unknown key `sistem`; did you mean `system`?"),
            (
                "version = 1\n[bash]\ndescription = \"x\"",
                "unknown sub-tool `bash`; did you mean `bash_code_execution`?",
            ),
            (
                "version = 1\n[bash_code_execution]\ndescriptoin = \"x\"",
                "unknown key `bash_code_execution.descriptoin`; did you mean `description`?",
            ),
            ("version = 1\n[code_execution]\ntools = 7", "code_execution.tools: not a text"),
            ("version = 1\n[code_execution]\ntools = \" \"", "code_execution.tools: empty"),
            (
                "version = 1\ntime_limit = \"{seconds}\"",
                "time_limit: `{seconds}` is none of `{python}`, `{packages}`, `{output_bytes_max}`, `{memory_bytes_max}`, \
                 `{disk_bytes_max}`, `{wall_s_max}`",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parse("mine", text), Err(expected.to_owned()), "{text}");
        }
        assert_eq!(
            read("shiny"),
            Err("\"shiny\" is none of \"hosted\", \"plain\", and no absolute path of a file".to_owned())
        );
        assert!(read("/no/such/file.toml").is_err_and(|problem| problem.starts_with("/no/such/file.toml: ")));
    }
}
