//! What is inside of a form, as calls.

use serde_json::{Map, Value, json};

use super::Offer;
use super::form::{Form, Marks};
use crate::openai::blocks::known_name;

/// A call that a model wrote.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Written {
    pub(super) name: String,
    /// An object.
    pub(super) arguments: Value,
}

/// The calls, all of tools on offer; none when it is anything else.
pub(super) fn read(form: Form, inside: &str, offers: &[Offer]) -> Option<Vec<Written>> {
    match form {
        Form::Thinking => None,
        Form::Json => json_calls(inside, offers),
        Form::Element if inside.trim_start().starts_with("<function=") => elements(inside, offers),
        Form::Element => json_calls(inside, offers),
        Form::Function => Some(vec![function(inside, offers)?]),
        Form::PythonTag => json_calls(inside, offers).or_else(|| code(inside, offers)),
        Form::Mistral => mistral(inside, offers),
        Form::Marked(marks) => marked(marks, inside, offers),
    }
}

fn offered<'a>(name: &str, offers: &'a [Offer]) -> Option<&'a Offer> {
    let names: Vec<String> = offers.iter().map(|offer| offer.name.clone()).collect();
    let name = known_name(name, &names);
    offers.iter().find(|offer| offer.name == name)
}

/// One call, a list of them, or several in a row, with semicolons or commas between.
fn json_calls(text: &str, offers: &[Offer]) -> Option<Vec<Written>> {
    let mut calls = Vec::new();
    let mut rest = text.trim();
    // `{` of an opening that has been read already.
    let mended = format!("{{{rest}");
    if rest.starts_with('"') {
        rest = &mended;
    }
    while !rest.is_empty() {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        match values.next()?.ok()? {
            Value::Array(items) => {
                for item in &items {
                    calls.push(json_call(item, offers)?);
                }
            }
            one => calls.push(json_call(&one, offers)?),
        }
        rest = rest[values.byte_offset()..].trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ';' | ','));
    }
    (!calls.is_empty()).then_some(calls)
}

/// `{"name": …, "arguments": {…}}` under the names that models give to the two.
fn json_call(value: &Value, offers: &[Offer]) -> Option<Written> {
    let members = value.as_object()?;
    let inner = members.get("function").and_then(Value::as_object).unwrap_or(members);
    let name = ["name", "tool", "tool_name", "function"].iter().find_map(|key| inner.get(*key)?.as_str())?;
    let arguments = ["arguments", "parameters", "args", "input", "tool_input"].iter().find_map(|key| inner.get(*key));
    let arguments = match arguments {
        Some(Value::Object(arguments)) => Value::Object(arguments.clone()),
        Some(Value::String(text)) => serde_json::from_str(text).ok().filter(Value::is_object)?,
        None => json!({}),
        Some(_) => return None,
    };
    Some(Written { name: offered(name, offers)?.name.clone(), arguments })
}

/// `<function=NAME>…</function>`, once or more.
fn elements(text: &str, offers: &[Offer]) -> Option<Vec<Written>> {
    let mut calls = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let inner = rest.strip_prefix("<function=")?;
        let (inner, behind) = inner.split_once("</function>").unwrap_or((inner, ""));
        calls.push(function(inner, offers)?);
        rest = behind.trim();
    }
    Some(calls)
}

/// `NAME>` and then JSON, or one `<parameter=KEY>` for each argument.
fn function(text: &str, offers: &[Offer]) -> Option<Written> {
    let (name, body) = text.split_once('>')?;
    let offer = offered(name.trim().trim_matches('"'), offers)?;
    let mut rest = body.trim();
    if rest.starts_with('{') {
        let arguments = serde_json::from_str(rest).ok().filter(Value::is_object)?;
        return Some(Written { name: offer.name.clone(), arguments });
    }
    let mut arguments = Map::new();
    while !rest.is_empty() {
        let (key, inner) = rest.strip_prefix("<parameter=")?.split_once('>')?;
        let (value, behind) = inner.split_once("</parameter>")?;
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        arguments.insert(key.trim().to_owned(), typed(value, &offer.input_schema["properties"][key.trim()]));
        rest = behind.trim_start();
    }
    Some(Written { name: offer.name.clone(), arguments: Value::Object(arguments) })
}

/// Calls between tokens. What DeepSeek's older models write has the word `function` for a name, and then the name and a fenced object.
fn marked(marks: &Marks, text: &str, offers: &[Offer]) -> Option<Vec<Written>> {
    let mut calls = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let inner = rest.strip_prefix(marks.call)?;
        let (inner, behind) = inner.split_once(marks.end).unwrap_or((inner, ""));
        let (mut name, mut arguments) = inner.split_once(marks.arguments)?;
        if let Some((named, fenced)) = arguments.split_once("\n```json\n").filter(|_| name.trim() == "function") {
            (name, arguments) = (named, fenced.trim_end().strip_suffix("```")?);
        }
        let arguments = serde_json::from_str(arguments.trim()).ok().filter(Value::is_object)?;
        calls.push(Written { name: offered(name, offers)?.name.clone(), arguments });
        rest = behind.trim();
    }
    (!calls.is_empty()).then_some(calls)
}

/// A value as its schema has it: these elements have no types.
fn typed(text: &str, schema: &Value) -> Value {
    let is_text = schema["type"].as_str().is_none_or(|tag| tag == "string");
    let read = || serde_json::from_str(text.trim()).ok();
    if is_text { text.into() } else { read().unwrap_or_else(|| text.into()) }
}

/// Python without a name around it is for the tool that runs Python.
fn code(text: &str, offers: &[Offer]) -> Option<Vec<Written>> {
    let runs = offers.iter().find(|offer| offer.name == "code_execution")?;
    let code = text.trim();
    (!code.is_empty()).then(|| vec![Written { name: runs.name.clone(), arguments: json!({"code": code}) }])
}

/// `[{…}, {…}]` of the older models, `NAME[ARGS]{…}` of the newer ones, with ids that nobody needs.
fn mistral(text: &str, offers: &[Offer]) -> Option<Vec<Written>> {
    if text.trim_start().starts_with(['[', '{']) {
        return json_calls(text, offers);
    }
    let mut calls = Vec::new();
    for one in text.split("[TOOL_CALLS]") {
        let (head, arguments) = match one.split_once("[ARGS]") {
            Some(parts) => parts,
            None => one.split_at(one.find('{')?),
        };
        let name = head.split("[CALL_ID]").next()?.trim();
        let arguments = serde_json::from_str(arguments.trim()).ok().filter(Value::is_object)?;
        calls.push(Written { name: offered(name, offers)?.name.clone(), arguments });
    }
    Some(calls)
}
