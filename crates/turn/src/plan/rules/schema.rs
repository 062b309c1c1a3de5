//! Row 18: recursion in the schema of a tool that code can call.

use std::collections::{HashMap, HashSet};

use belljar_wire::error::ApiError;
use belljar_wire::tool::Tool;
use serde_json::Value;

use super::Draft;
use super::tools::path;
use crate::runtime::callers;

/// Values that are looked at in one schema. References may share their targets, so work can exceed size.
const VALUES_MAX: usize = 1_000_000;

/// Row 18.
pub(super) fn refs_are_not_circular(draft: &Draft<'_>) -> Result<(), ApiError> {
    for (index, tool) in draft.request.tools.iter().enumerate() {
        let Tool::Custom(custom) = tool else {
            continue;
        };
        if callers(tool).code && circular(&custom.input_schema) {
            let path = path(index, tool);
            return Err(ApiError::invalid(format!(
                "{path}.input_schema: Circular $ref detected; tools that can be called from code cannot have recursive schemas"
            )));
        }
    }
    Ok(())
}

/// Whether following local references can go on for ever. A schema too tangled to tell counts as circular.
fn circular(schema: &Value) -> bool {
    let mut values_left = VALUES_MAX;
    let mut done: HashSet<&str> = HashSet::new();
    let mut on_path: HashSet<&str> = HashSet::new();
    let mut edges: HashMap<&str, Vec<&str>> = HashMap::new();
    for root in refs(schema, &mut values_left) {
        // Each entry is a reference to enter, or one to leave. No recursion: a chain of references may be long.
        let mut work = vec![(root, false)];
        while let Some((reference, leaving)) = work.pop() {
            if leaving {
                on_path.remove(reference);
                done.insert(reference);
                continue;
            }
            if done.contains(reference) {
                continue;
            }
            if !on_path.insert(reference) {
                return true;
            }
            let targets = edges.entry(reference).or_insert_with(|| {
                let target = reference.strip_prefix('#').and_then(|at| schema.pointer(at));
                target.map(|target| refs(target, &mut values_left)).unwrap_or_default()
            });
            work.push((reference, true));
            for target in targets.iter() {
                if on_path.contains(target) {
                    return true;
                }
                work.push((target, false));
            }
            if values_left == 0 {
                return true;
            }
        }
    }
    values_left == 0
}

/// The references inside of `value`, each once.
fn refs<'a>(value: &'a Value, values_left: &mut usize) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut work = vec![value];
    while let Some(value) = work.pop() {
        if *values_left == 0 {
            break;
        }
        *values_left -= 1;
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref")
                    && seen.insert(reference.as_str())
                {
                    found.push(reference.as_str());
                }
                work.extend(members.values());
            }
            Value::Array(items) => work.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    found
}
