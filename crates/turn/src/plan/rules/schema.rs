//! Row 18: recursion in the schema of a tool that code can call.

use std::collections::{HashMap, HashSet};

use belljar_wire::error::ApiError;
use belljar_wire::tool::Tool;
use serde_json::{Map, Value};

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
    let names = Names::of(schema, &mut values_left);
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
                let targets = names.targets(schema, reference);
                targets.into_iter().flat_map(|target| refs(target, &mut values_left)).collect()
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

/// The parts of a schema that have a name of their own.
#[derive(Default)]
struct Names<'a> {
    /// `$anchor` and `$dynamicAnchor`; parts with an `$id` each may have the same ones.
    anchors: HashMap<&'a str, Vec<&'a Value>>,
    /// `$id`, as it is written: nothing is resolved against a base.
    ids: HashMap<&'a str, &'a Value>,
}

impl<'a> Names<'a> {
    fn of(schema: &'a Value, values_left: &mut usize) -> Self {
        let mut names = Self::default();
        walk(schema, values_left, |value, members| {
            for key in ["$anchor", "$dynamicAnchor"] {
                if let Some(anchor) = members.get(key).and_then(Value::as_str) {
                    names.anchors.entry(anchor).or_default().push(value);
                }
            }
            if let Some(id) = members.get("$id").and_then(Value::as_str) {
                names.ids.insert(id.trim_end_matches('#'), value);
            }
        });
        names
    }

    /// What a reference stands for, as far as it is in the schema itself: a pointer, percent-encoded or not, or an anchor.
    fn targets(&self, schema: &'a Value, reference: &str) -> Vec<&'a Value> {
        let (base, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let base = match base {
            "" => schema,
            id => match self.ids.get(id) {
                Some(part) => part,
                None => return Vec::new(),
            },
        };
        let fragment = percent_decoded(fragment);
        match fragment.as_str() {
            "" => vec![base],
            pointer if pointer.starts_with('/') => base.pointer(pointer).into_iter().collect(),
            anchor => self.anchors.get(anchor).cloned().unwrap_or_default(),
        }
    }
}

/// A URI fragment's text; what is not encoded rightly stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let decoded = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// The references inside of `value`, each once.
fn refs<'a>(value: &'a Value, values_left: &mut usize) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    walk(value, values_left, |_, members| {
        for key in ["$ref", "$dynamicRef", "$recursiveRef"] {
            if let Some(Value::String(reference)) = members.get(key)
                && seen.insert(reference.as_str())
            {
                found.push(reference.as_str());
            }
        }
    });
    found
}

/// Shows every object inside of `value`, until the count is used up.
fn walk<'a>(value: &'a Value, values_left: &mut usize, mut show: impl FnMut(&'a Value, &'a Map<String, Value>)) {
    let mut work = vec![value];
    while let Some(value) = work.pop() {
        if *values_left == 0 {
            break;
        }
        *values_left -= 1;
        match value {
            Value::Object(members) => {
                show(value, members);
                work.extend(members.values());
            }
            Value::Array(items) => work.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
