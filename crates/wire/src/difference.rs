//! What differs between two normal forms ([`crate::normal`]): key by key, with the order of keys.

use std::fmt;

use serde_json::Value;

/// Whether the order of an object's members counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrder {
    /// It does (wire.md §23).
    Counts,
    /// One of the two was written by something that sorts.
    Lost,
}

/// One side of a difference.
#[derive(Clone, Debug, PartialEq)]
pub enum Side {
    /// Nothing stands there.
    Absent,
    /// This stands there.
    Is(Value),
    /// An object with these members, in this order.
    Keys(Vec<String>),
}

/// One place at which two values differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The place, as `content[2].caller`.
    pub at: String,
    /// What the first has there.
    pub left: Side,
    /// What the second has there.
    pub right: Side,
}

/// Most characters of a value in the text of a difference.
const SHOWN_CHARS_MAX: usize = 160;

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Absent => return f.write_str("(absent)"),
            Self::Is(value) => value.to_string(),
            Self::Keys(keys) => format!("keys in the order {}", keys.join(", ")),
        };
        match text.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((end, _)) => write!(f, "{}…", &text[..end]),
            None => f.write_str(&text),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} | {}", self.at, self.left, self.right)
    }
}

/// Every difference, from the beginning to the end.
pub fn differences(left: &Value, right: &Value, order: KeyOrder) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), left, right, order, &mut found);
    found
}

fn compare(at: String, left: &Value, right: &Value, order: KeyOrder, found: &mut Vec<Difference>) {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            for (key, value) in left {
                let at = member(&at, key);
                match right.get(key) {
                    Some(other) => compare(at, value, other, order, found),
                    None => found.push(Difference { at, left: Side::Is(value.clone()), right: Side::Absent }),
                }
            }
            for (key, value) in right.iter().filter(|(key, _)| !left.contains_key(*key)) {
                let at = member(&at, key);
                found.push(Difference { at, left: Side::Absent, right: Side::Is(value.clone()) });
            }
            // Only members that both have: one that is missing is a difference of its own.
            let keys: Vec<String> = left.keys().filter(|key| right.contains_key(*key)).cloned().collect();
            let others: Vec<String> = right.keys().filter(|key| left.contains_key(*key)).cloned().collect();
            if order == KeyOrder::Counts && keys != others {
                found.push(Difference { at, left: Side::Keys(keys), right: Side::Keys(others) });
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            for index in 0..left.len().max(right.len()) {
                let at = format!("{at}[{index}]");
                match (left.get(index), right.get(index)) {
                    (Some(left), Some(right)) => compare(at, left, right, order, found),
                    (left, right) => found.push(Difference { at, left: side(left), right: side(right) }),
                }
            }
        }
        (left, right) if left == right => {}
        (left, right) => found.push(Difference { at, left: side(Some(left)), right: side(Some(right)) }),
    }
}

fn side(value: Option<&Value>) -> Side {
    value.map_or(Side::Absent, |value| Side::Is(value.clone()))
}

fn member(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// Whether each object in `value` has its members in the order of the alphabet, and some object has enough of them for that to
/// be no accident: then a tool on the way has sorted them.
pub fn is_sorted(value: &Value) -> bool {
    let mut most = 0;
    sorted(value, &mut most) && most >= 4
}

fn sorted(value: &Value, most: &mut usize) -> bool {
    match value {
        Value::Object(members) => {
            *most = (*most).max(members.len());
            members.keys().is_sorted() && members.values().all(|value| sorted(value, most))
        }
        Value::Array(items) => items.iter().all(|item| sorted(item, most)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}
