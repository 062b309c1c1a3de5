//! Reading JSON with the path of what is being read, so that an error names its field in the hosted API's voice.
//!
//! Values are moved out of the parsed tree, never cloned: a request may hold 32 MB (wire.md §2.8).

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Number, Value};

use crate::error::ApiError;

/// Where in the document we are; lives on the stack.
#[derive(Clone, Copy)]
pub enum Path<'a> {
    /// The document itself.
    Root,
    /// A member of an object, or the tag of a union's member.
    Key(&'a Path<'a>, &'a str),
    /// An element of an array.
    Index(&'a Path<'a>, usize),
}

impl<'a> Path<'a> {
    /// The path of a member.
    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }

    /// The path of an element.
    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    /// A 400 that names this place: `messages.0.role: Field required`.
    pub fn error(&self, message: impl fmt::Display) -> ApiError {
        ApiError::invalid(format!("{self}: {message}"))
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = |parent: &Path<'_>| {
            if matches!(parent, Path::Root) { "" } else { "." }
        };
        match self {
            Path::Root => Ok(()),
            Path::Key(parent, key) => write!(f, "{parent}{}{}", dot(parent), Brief(key)),
            Path::Index(parent, index) => write!(f, "{parent}{}{index}", dot(parent)),
        }
    }
}

/// A client's own text inside an error: cut, so that a huge key cannot make a huge error.
pub struct Brief<'a>(pub &'a str);

/// Characters of a client's text that an error repeats.
const BRIEF_CHARS_MAX: usize = 128;

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(BRIEF_CHARS_MAX) {
            None => f.write_str(self.0),
            Some((end, _)) => write!(f, "{}…", &self.0[..end]),
        }
    }
}

/// Most JSON values in one body. A parsed value takes up to a hundred times its bytes in memory, so the limit on bytes alone
/// (wire.md §2.8) would let 32 MB of `[[],[],…` become gigabytes. Room for 100,000 messages of a block each.
pub const JSON_VALUES_MAX: usize = 1_000_000;

/// Parses a body as JSON. Duplicate keys are refused: two readers of such a body may disagree about it. Nesting is limited
/// by `serde_json`, to 128 levels. Integers are exact within 64 bits, other numbers are doubles.
///
/// # Errors
/// 400, saying where the body stops being JSON, or that it has more than [`JSON_VALUES_MAX`] values.
pub fn parse(body: &[u8]) -> Result<Value, ApiError> {
    let values_left = Cell::new(JSON_VALUES_MAX);
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value =
        Unambiguous(&values_left).deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| match error.classify() {
        // Nothing here deserializes into a type, so the only data errors are the two that `Unambiguous` raises itself.
        Category::Data => ApiError::invalid(format!("The request body is refused: {error}")),
        Category::Io | Category::Syntax | Category::Eof => {
            ApiError::invalid(format!("The request body is not valid JSON: {error}"))
        }
    })
}

/// A JSON object being read member by member.
pub struct Object<'a> {
    members: Map<String, Value>,
    path: Path<'a>,
}

impl<'a> Object<'a> {
    /// Starts reading `value`, which must be an object.
    pub fn new(value: Value, path: Path<'a>) -> Result<Self, ApiError> {
        match value {
            Value::Object(members) => Ok(Self { members, path }),
            _ => Err(path.error("Input should be an object")),
        }
    }

    /// Where this object stands.
    pub fn path(&self) -> Path<'a> {
        self.path
    }

    /// The same object, named by a longer path (the tag of a union).
    pub fn at<'b>(self, path: Path<'b>) -> Object<'b> {
        Object { members: self.members, path }
    }

    /// Takes a member; an explicit `null` counts as absent.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.members.shift_remove(key).filter(|value| !value.is_null())
    }

    /// Takes a member unless it is `null`, which stays for [`Object::rest`] to keep: a replay says what was sent.
    pub fn take_unless_null(&mut self, key: &str) -> Option<Value> {
        if self.members.get(key)?.is_null() {
            return None;
        }
        self.members.shift_remove(key)
    }

    /// Looks at a member without taking it.
    pub fn peek(&self, key: &str) -> Option<&Value> {
        self.members.get(key)
    }

    /// Takes a member that must be there.
    pub fn required(&mut self, key: &str) -> Result<Value, ApiError> {
        self.members.shift_remove(key).ok_or_else(|| self.path.key(key).error("Field required"))
    }

    /// A required string.
    pub fn string(&mut self, key: &str) -> Result<String, ApiError> {
        let value = self.required(key)?;
        string(value, &self.path.key(key))
    }

    /// An optional string.
    pub fn optional_string(&mut self, key: &str) -> Result<Option<String>, ApiError> {
        self.take(key).map(|value| string(value, &self.path.key(key))).transpose()
    }

    /// An optional boolean.
    pub fn optional_bool(&mut self, key: &str) -> Result<Option<bool>, ApiError> {
        self.take(key)
            .map(|value| value.as_bool().ok_or_else(|| self.path.key(key).error("Input should be a valid boolean")))
            .transpose()
    }

    /// An optional number.
    pub fn optional_number(&mut self, key: &str) -> Result<Option<Number>, ApiError> {
        self.take(key)
            .map(|value| match value {
                Value::Number(number) => Ok(number),
                _ => Err(self.path.key(key).error("Input should be a valid number")),
            })
            .transpose()
    }

    /// An optional list whose elements `read` reads.
    pub fn optional_list<T>(
        &mut self,
        key: &str,
        read: impl Fn(Value, Path<'_>) -> Result<T, ApiError>,
    ) -> Result<Option<Vec<T>>, ApiError> {
        self.take(key).map(|value| list(value, &self.path.key(key), read)).transpose()
    }

    /// Ends reading: what is left has no place here (wire.md §19 row 4).
    pub fn finish(self) -> Result<(), ApiError> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(key) => Err(self.path.key(key).error("Extra inputs are not permitted")),
        }
    }

    /// Ends reading: what is left is kept as it came.
    pub fn rest(self) -> Map<String, Value> {
        self.members
    }
}

/// `value` as a string.
pub fn string(value: Value, path: &Path<'_>) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(path.error("Input should be a valid string")),
    }
}

/// `value` as a list whose elements `read` reads.
pub fn list<T>(
    value: Value,
    path: &Path<'_>,
    read: impl Fn(Value, Path<'_>) -> Result<T, ApiError>,
) -> Result<Vec<T>, ApiError> {
    match value {
        Value::Array(items) => {
            items.into_iter().enumerate().map(|(index, item)| read(item, path.index(index))).collect()
        }
        _ => Err(path.error("Input should be a valid list")),
    }
}

/// The error for a union's tag that names no member (wire.md §19 rows 29 and 37).
pub fn unknown_tag(path: &Path<'_>, tag: &str, expected: &[&str]) -> ApiError {
    let expected: Vec<String> = expected.iter().map(|tag| format!("'{tag}'")).collect();
    path.error(format!(
        "Input tag '{}' found using 'type' does not match any of the expected tags: {}",
        Brief(tag),
        expected.join(", ")
    ))
}

/// Deserializes a [`Value`], refusing objects that name a key twice; counts down the values that may still come.
#[derive(Clone, Copy)]
struct Unambiguous<'c>(&'c Cell<usize>);

impl<'de> DeserializeSeed<'de> for Unambiguous<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let Some(left) = self.0.get().checked_sub(1) else {
            return Err(serde::de::Error::custom(format_args!("it has more than {JSON_VALUES_MAX} values")));
        };
        self.0.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unambiguous<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if members.contains_key(&key) {
                return Err(serde::de::Error::custom(format_args!("duplicate key `{}`", Brief(&key))));
            }
            let value = map.next_value_seed(self)?;
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}
