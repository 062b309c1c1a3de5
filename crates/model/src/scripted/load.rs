//! A directory of scripts, read at start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use belljar_wire::read::Brief;
use serde_json::Value;

use crate::scripted::script::Script;

/// Bytes of one script file.
const SCRIPT_BYTES_MAX: u64 = 16 << 20;

/// Scripts by name, the file's name without its extension: `*.json`, `*.yaml` and `*.yml` of `directory`, nothing below it.
///
/// # Errors
/// Names the file, and the field where there is one.
pub(super) fn scripts(directory: &Path) -> Result<BTreeMap<String, Script>, String> {
    let unreadable = |error| format!("scripts_dir `{}`: {error}", directory.display());
    let mut scripts = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let Some(syntax) = Syntax::of(&file) else {
            continue;
        };
        let problem = |problem: String| format!("script `{}`: {problem}", file.display());
        let name = file.file_stem().and_then(|stem| stem.to_str());
        let name = name.ok_or_else(|| problem("its name is not UTF-8".to_owned()))?;
        let script = read(&file, syntax).map_err(problem)?;
        if scripts.insert(name.to_owned(), script).is_some() {
            return Err(problem(format!("another script is called `{name}`")));
        }
    }
    Ok(scripts)
}

#[derive(Clone, Copy)]
enum Syntax {
    Json,
    Yaml,
}

impl Syntax {
    /// By extension; none for what is no script, hidden files among them.
    fn of(file: &Path) -> Option<Self> {
        let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
        if file.file_name().is_none_or(hidden) {
            return None;
        }
        match file.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

fn read(file: &Path, syntax: Syntax) -> Result<Script, String> {
    let mut text = String::new();
    let file = File::open(file).map_err(|error| error.to_string())?;
    let mut bounded = file.take(SCRIPT_BYTES_MAX + 1);
    bounded.read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > SCRIPT_BYTES_MAX {
        return Err(format!("it is larger than {SCRIPT_BYTES_MAX} bytes"));
    }
    let value = parse(&text, syntax)?;
    Script::read(value).map_err(|error| error.message)
}

/// Both syntaxes go through YAML's values, which refuse a key that stands twice in one object.
fn parse(text: &str, syntax: Syntax) -> Result<Value, String> {
    let value: serde_yaml_ng::Value = match syntax {
        Syntax::Json => serde_json::from_str(text).map_err(|error| format!("not valid JSON: {error}"))?,
        Syntax::Yaml => serde_yaml_ng::from_str(text).map_err(|error| format!("not valid YAML: {error}"))?,
    };
    serde_json::to_value(value).map_err(|error| format!("no JSON can hold it: {error}"))
}

/// The names of `scripts`, for a person.
pub(super) fn names(scripts: &BTreeMap<String, Script>) -> String {
    /// Names that one error lists.
    const NAMES_MAX: usize = 40;
    if scripts.is_empty() {
        return "this server has no scripts".to_owned();
    }
    let listed: Vec<String> = scripts.keys().take(NAMES_MAX).map(|name| format!("`{}`", Brief(name))).collect();
    let more = match scripts.len() - listed.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("this server has {}{more}", listed.join(", "))
}
