//! Scripts from a directory, all read and checked at the start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use belljar_wire::read::parse;
use serde_json::Value;

use super::play::events_of;
use super::script::{Fault, Script};

/// Most bytes of one script file.
const SCRIPT_BYTES_MAX: u64 = 8 << 20;

/// Reads every `*.json`, `*.yaml` and `*.yml` of the directory; a script's name is its file's, without the ending.
///
/// # Errors
/// The file, the field and what is wrong with it, in one line.
pub(super) fn load(dir: &Path) -> Result<BTreeMap<String, Script>, String> {
    let wrong = |error: std::io::Error| format!("scripts_dir `{}`: {error}", dir.display());
    let mut scripts = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if !matches!(ending, Some("json" | "yaml" | "yml")) {
            continue;
        }
        let in_file = |problem: String| format!("script `{}`: {problem}", path.display());
        let name = path.file_stem().and_then(|stem| stem.to_str());
        let name = name.ok_or_else(|| in_file("its name is not UTF-8".to_owned()))?;
        let script = read(&path, ending == Some("json")).map_err(in_file)?;
        if scripts.insert(name.to_owned(), script).is_some() {
            return Err(in_file("another script has the same name".to_owned()));
        }
    }
    Ok(scripts)
}

fn read(path: &Path, is_json: bool) -> Result<Script, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(SCRIPT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > SCRIPT_BYTES_MAX {
        return Err(format!("it is larger than {SCRIPT_BYTES_MAX} bytes"));
    }
    let value: Value = if is_json {
        parse(&bytes).map_err(|_| match serde_json::from_slice::<Value>(&bytes) {
            Err(error) => format!("not JSON: {error}"),
            Ok(_) => "a key stands twice in one object".to_owned(),
        })?
    } else {
        serde_yaml_ng::from_slice(&bytes).map_err(|error| format!("not YAML: {error}"))?
    };
    let script = Script::read(value).map_err(|error| error.message)?;
    check_faults(&script)?;
    Ok(script)
}

/// A fault that would come after the last event would never come.
fn check_faults(script: &Script) -> Result<(), String> {
    for (index, step) in script.steps.iter().enumerate() {
        let (Some(Fault::ErrorMidStream { after_events, .. }) | Some(Fault::CutConnection { after_events })) =
            &step.fault
        else {
            continue;
        };
        let events = events_of(step, 0, 0).len();
        if *after_events >= events {
            return Err(format!(
                "steps.{index}.fault.after_events: the step has {events} events, so the fault would never come"
            ));
        }
    }
    Ok(())
}
