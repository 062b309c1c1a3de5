//! What each word of a schema asks for.

use std::cmp::Ordering;

use regex_lite::Regex;
use serde_json::{Map, Number, Value};

use super::compare::order;
use super::{Asked, Check, Found, NoSense, STEPS_MAX, is, place, same, shown, under, within};

impl Asked<'_> {
    fn is_not(&self, what: &str) -> Found {
        Ok(Some(format!("{} must {what}, not {}", place(self.path), shown(self.value))))
    }

    /// Whether a number is within bounds.
    pub(super) fn bound(&self, text: &str, fits: fn(Ordering) -> bool) -> Found {
        let bound = self.operand.as_number().ok_or(NoSense)?;
        match self.value.as_number().and_then(|value| order(value, bound)) {
            Some(order) if !fits(order) => self.is_not(&format!("be {text} {bound}")),
            Some(_) | None => Ok(None),
        }
    }

    /// Whether there is so much in something.
    pub(super) fn size(&self, kind: &str, text: &str, parts: &str, fits: fn(Ordering) -> bool) -> Found {
        let bound = self.operand.as_number().ok_or(NoSense)?;
        let size = match self.value {
            _ if !is(self.value, kind) => return Ok(None),
            Value::String(text) => text.chars().count(),
            Value::Array(items) => items.len(),
            Value::Object(members) => members.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) => return Ok(None),
        };
        match order(&Number::from(size), bound) {
            Some(order) if !fits(order) => {
                Ok(Some(format!("{} must have {text} {bound} {parts}, not {size}", place(self.path))))
            }
            Some(_) | None => Ok(None),
        }
    }

    fn list(&self) -> Result<&[Value], NoSense> {
        self.operand.as_array().map(Vec::as_slice).ok_or(NoSense)
    }

    fn schemas(&self) -> Result<&Map<String, Value>, NoSense> {
        self.operand.as_object().ok_or(NoSense)
    }

    fn members(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.value.as_object().into_iter().flatten()
    }

    fn parts(&self) -> impl Iterator<Item = (String, &Value)> {
        let items = self.value.as_array().into_iter().flatten();
        items.enumerate().map(|(at, item)| (format!("{}[{at}]", self.path), item))
    }
}

fn said_of(kind: &str) -> &str {
    match kind {
        "object" => "an object (dict)",
        "array" => "an array (list)",
        "string" => "a string",
        "integer" => "an integer",
        "number" => "a number",
        "boolean" => "a boolean",
        "null" => "null (None)",
        other => other,
    }
}

pub fn kind(_: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let kinds = match asked.operand {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().map(Value::as_str).collect::<Option<_>>().ok_or(NoSense)?,
        _ => return Err(NoSense),
    };
    if kinds.iter().any(|kind| is(asked.value, kind)) {
        return Ok(None);
    }
    let kinds: Vec<&str> = kinds.into_iter().map(said_of).collect();
    asked.is_not(&format!("be {}", kinds.join(" or ")))
}

pub fn one_of_these(_: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let allowed = asked.list()?;
    if allowed.iter().any(|one| same(asked.value, one)) {
        return Ok(None);
    }
    let allowed: Vec<String> = allowed.iter().map(shown).collect();
    asked.is_not(&format!("be one of {}", allowed.join(", ")))
}

pub fn exactly(_: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    if same(asked.value, asked.operand) { Ok(None) } else { asked.is_not(&format!("be {}", shown(asked.operand))) }
}

pub fn required(_: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let (Some(value), keys) = (asked.value.as_object(), asked.list()?) else {
        return Ok(None);
    };
    if keys.iter().any(|key| key.is_array() || key.is_object()) {
        return Err(NoSense);
    }
    let missing = keys.iter().find(|key| key.as_str().is_none_or(|key| !value.contains_key(key)));
    Ok(missing.map(|key| format!("{}{} is required", within(asked.path), shown(key))))
}

pub fn properties(check: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let Some(value) = asked.value.as_object() else {
        return Ok(None);
    };
    let mut pairs = asked.schemas()?.iter().filter_map(|(key, schema)| Some((key, value.get(key)?, schema)));
    Ok(pairs.find_map(|(key, part, schema)| check.of(part, schema, &under(asked.path, key))))
}

fn patterns(schemas: &Map<String, Value>) -> Result<Vec<(Regex, &Value)>, NoSense> {
    schemas.iter().map(|(pattern, schema)| Ok((regex(pattern)?, schema))).collect()
}

/// What it does not know, Python may: then nothing is asked for.
fn regex(pattern: &str) -> Result<Regex, NoSense> {
    Regex::new(pattern).map_err(|_not_ours| NoSense)
}

pub fn pattern_properties(check: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let patterns = patterns(asked.schemas()?)?;
    let mut pairs = asked.members().flat_map(|(key, part)| {
        let fitting = patterns.iter().filter(move |(pattern, _)| pattern.is_match(key));
        fitting.map(move |(_, schema)| (key, part, *schema))
    });
    Ok(pairs.find_map(|(key, part, schema)| check.of(part, schema, &under(asked.path, key))))
}

pub fn additional(check: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let part = |word: &str| asked.schema.get(word).and_then(Value::as_object);
    let (known, others) = (part("properties"), asked.operand);
    let patterns = part("patternProperties").map(patterns).transpose()?.unwrap_or_default();
    for (key, part) in asked.members() {
        let named = known.is_some_and(|known| known.contains_key(key));
        if named || patterns.iter().any(|(pattern, _)| pattern.is_match(key)) {
            continue;
        }
        if *others == Value::Bool(false) {
            let known: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let key = shown(&Value::from(key.as_str()));
            return Ok(Some(format!("{}unknown key {key} (known: {known})", within(asked.path))));
        }
        if let Some(found) = check.of(part, others, &under(asked.path, key)) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

pub fn property_names(check: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let mut names = asked.members().map(|(key, _)| (Value::from(key.as_str()), under(asked.path, key)));
    Ok(names.find_map(|(name, path)| check.of(&name, asked.operand, &path)))
}

pub fn prefix_items(check: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let mut pairs = asked.parts().zip(asked.list()?);
    Ok(pairs.find_map(|((path, item), schema)| check.of(item, schema, &path)))
}

pub fn items(check: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    if asked.operand.is_array() {
        return Ok(None);
    }
    let before = match asked.schema.get("prefixItems") {
        Some(schemas) => schemas.as_array().ok_or(NoSense)?.len(),
        None => 0,
    };
    Ok(asked.parts().skip(before).find_map(|(path, item)| check.of(item, asked.operand, &path)))
}

pub fn unique(check: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let (Value::Bool(true), Some(items)) = (asked.operand, asked.value.as_array()) else {
        return Ok(None);
    };
    for (at, item) in items.iter().enumerate() {
        check.steps += at;
        if check.steps > STEPS_MAX {
            return Ok(None);
        }
        if items[..at].iter().any(|other| same(item, other)) {
            return Ok(Some(format!("{}[{at}] must not be there twice: {}", asked.path, shown(item))));
        }
    }
    Ok(None)
}

pub fn multiple(_: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let step = asked.operand.as_number().ok_or(NoSense)?;
    let (Some(value), Some(divisor)) = (asked.value.as_f64(), step.as_f64().filter(|step| *step != 0.0)) else {
        return Ok(None);
    };
    let times = value / divisor;
    if (times - times.round()).abs() < 1e-9 { Ok(None) } else { asked.is_not(&format!("be a multiple of {step}")) }
}

pub fn pattern(_: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let pattern = asked.operand.as_str().ok_or(NoSense)?;
    match asked.value.as_str() {
        Some(text) if !regex(pattern)?.is_match(text) => asked.is_not(&format!("match the pattern {pattern}")),
        Some(_) | None => Ok(None),
    }
}

pub fn all_of(check: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    Ok(asked.list()?.iter().find_map(|schema| check.of(asked.value, schema, asked.path)))
}

pub fn any_of(check: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let mut complaints: Vec<String> = Vec::new();
    let mut fits = false;
    for schema in asked.list()? {
        match check.of(asked.value, schema, asked.path) {
            Some(complaint) if !complaints.contains(&complaint) => complaints.push(complaint),
            Some(_) => {}
            None => fits = true,
        }
    }
    if fits || complaints.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!("{} fits none of what is allowed: {}", place(asked.path), complaints.join("; or "))))
}

pub fn one_of(check: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let fitting = asked.list()?.iter().filter(|schema| check.of(asked.value, schema, asked.path).is_none()).count();
    if fitting > 1 {
        return Ok(Some(format!("{} fits {fitting} of what is allowed, and must fit one", place(asked.path))));
    }
    any_of(check, asked)
}

pub fn none_of(check: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    match check.of(asked.value, asked.operand, asked.path) {
        Some(_) => Ok(None),
        None => Ok(Some(format!("{} must not be {}", place(asked.path), shown(asked.value)))),
    }
}

/// A reference within the schema. Others, and those that lead nowhere, ask for nothing.
pub fn reference(check: &mut Check<'_>, asked: &Asked<'_>) -> Found {
    let pointer = asked.operand.as_str().and_then(|reference| reference.strip_prefix('#')).ok_or(NoSense)?;
    let schema = check.root.pointer(pointer).ok_or(NoSense)?;
    Ok(check.of(asked.value, schema, asked.path))
}
