//! What makes a call the same as another: everything that is sent, but for what this server draws by lot.
//!
//! Two runs of one conversation send different ids of calls and other names of `$OUTPUT_DIR`, and nothing else that is different
//! unless the client or its code says something else. Ids are numbered here, in the order in which they appear.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash as _, Hasher as _};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::Endpoint;

/// What our ids begin with. The longer of two that end alike stands first.
const PREFIXES: [&str; 6] = ["srvtoolu_01", "toolu_01", "container_01", "file_01", "msg_01", "req_01"];
/// Least random characters of an id.
const ID_CHARS_MIN: usize = 22;
/// What names of output directories begin with, and how long the random part is.
const OUTPUT_PREFIX: &str = "/files/output/";
const OUTPUT_CHARS: usize = 16;

/// SHA-256 of a canonical call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A call in canonical form.
pub(crate) struct Canonical {
    endpoint: Endpoint,
    betas: String,
    body: Value,
}

impl Canonical {
    pub(crate) fn of(endpoint: Endpoint, betas: Option<&str>, body: &Value) -> Self {
        let mut names = Names::default();
        Self { endpoint, betas: betas.unwrap_or_default().to_owned(), body: names.canonical(body) }
    }

    pub(crate) fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(format!("{}\n{}\n{}", self.endpoint.path(), self.betas, self.body));
        Digest(hash.finalize().into())
    }

    /// Hashes of its parts, sorted: calls that are alike share many.
    pub(crate) fn sketch(&self) -> Box<[u64]> {
        let part = |name: &str, index: usize, value: &Value| {
            let mut hasher = DefaultHasher::new();
            (self.endpoint, name, index, value.to_string()).hash(&mut hasher);
            hasher.finish()
        };
        let members = self.body.as_object().into_iter().flatten();
        let mut parts: Vec<u64> = members
            .flat_map(|(name, value)| match value {
                Value::Array(items) => items.iter().enumerate().map(|(index, item)| part(name, index, item)).collect(),
                value => vec![part(name, 0, value)],
            })
            .collect();
        parts.sort_unstable();
        parts.into()
    }

    /// The first thing that differs between a recorded call and this one; none when nothing does.
    pub(crate) fn differs_from(&self, recorded: &Self) -> Option<Difference> {
        if self.betas != recorded.betas {
            let (recorded, asked) = (brief(&recorded.betas), brief(&self.betas));
            return Some(Difference { path: "anthropic-beta".to_owned(), recorded, asked });
        }
        first_difference(String::new(), &recorded.body, &self.body)
    }
}

/// Where two calls part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) path: String,
    pub(crate) recorded: String,
    pub(crate) asked: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at `{}` it has {}, and was asked {}", self.path, self.recorded, self.asked)
    }
}

fn first_difference(path: String, recorded: &Value, asked: &Value) -> Option<Difference> {
    let below = |name: &dyn fmt::Display| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
    match (recorded, asked) {
        (recorded, asked) if recorded == asked => None,
        (Value::Object(left), Value::Object(right)) => {
            let names = left.keys().chain(right.keys().filter(|name| !left.contains_key(*name)));
            let nothing = Value::Null;
            let value = |members: &Map<String, Value>, name: &str| members.get(name).unwrap_or(&nothing).clone();
            names.into_iter().find_map(|name| first_difference(below(name), &value(left, name), &value(right, name)))
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let items = left.iter().zip(right).enumerate();
            items.into_iter().find_map(|(index, (left, right))| first_difference(below(&index), left, right))
        }
        (Value::Array(left), Value::Array(right)) => {
            let items = left.iter().zip(right).enumerate();
            let within =
                items.into_iter().find_map(|(index, (left, right))| first_difference(below(&index), left, right));
            let counted = |items: &[Value]| format!("{} items", items.len());
            within.or_else(|| Some(Difference { recorded: counted(left), asked: counted(right), path: path.clone() }))
        }
        (Value::String(left), Value::String(right)) => {
            // Long texts begin alike.
            let same = left.chars().zip(right.chars()).take_while(|(left, right)| left == right).count();
            let from = same.saturating_sub(20);
            let tail =
                |text: &str| brief(&Value::from(text.chars().skip(from).take(60).collect::<String>()).to_string());
            Some(Difference { path, recorded: tail(left), asked: tail(right) })
        }
        (left, right) => {
            Some(Difference { path, recorded: brief(&left.to_string()), asked: brief(&right.to_string()) })
        }
    }
}

fn brief(text: &str) -> String {
    match text.char_indices().nth(80) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Names for what is drawn by lot, in the order of their appearance.
#[derive(Default)]
struct Names {
    known: HashMap<String, usize>,
}

impl Names {
    fn canonical(&mut self, value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
                sorted.sort_unstable_by_key(|(name, _)| *name);
                Value::Object(sorted.into_iter().map(|(name, value)| (name.clone(), self.canonical(value))).collect())
            }
            Value::Array(items) => items.iter().map(|item| self.canonical(item)).collect(),
            Value::String(text) => self.text(text).into(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn text(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((begin, end, prefix)) = lot(rest) {
            let count = self.known.len();
            let number = *self.known.entry(rest[begin..end].to_owned()).or_insert(count);
            out.push_str(&rest[..begin]);
            out.push_str(&format!("{prefix}#{number}"));
            rest = &rest[end..];
        }
        out.push_str(rest);
        out
    }
}

/// The first name in a text that was drawn by lot, and what it begins with.
fn lot(text: &str) -> Option<(usize, usize, &'static str)> {
    let bytes = text.as_bytes();
    (0..bytes.len()).find_map(|begin| {
        // Most bytes begin nothing.
        if !matches!(bytes[begin], b's' | b't' | b'c' | b'f' | b'm' | b'r' | b'/') {
            return None;
        }
        let inside = begin.checked_sub(1).is_some_and(|before| bytes[before].is_ascii_alphanumeric());
        let run = |from: usize, legal: fn(&u8) -> bool| bytes[from..].iter().take_while(|byte| legal(byte)).count();
        if bytes[begin..].starts_with(OUTPUT_PREFIX.as_bytes()) {
            let from = begin + OUTPUT_PREFIX.len();
            let count = run(from, |byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
            return (count == OUTPUT_CHARS).then_some((begin, from + count, OUTPUT_PREFIX));
        }
        let prefix =
            PREFIXES.iter().find(|prefix| bytes[begin..].starts_with(prefix.as_bytes())).filter(|_| !inside)?;
        let from = begin + prefix.len();
        let count = run(from, u8::is_ascii_alphanumeric);
        (count >= ID_CHARS_MIN).then_some((begin, from + count, *prefix))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(body: &Value) -> Digest {
        Canonical::of(Endpoint::Messages, None, body).digest()
    }

    const ONE: &str = "toolu_0123456789ABCDEFGHJKLMNP";
    const OTHER: &str = "toolu_01zyxwvutsrqponmkjihgfed";

    #[test]
    fn what_is_drawn_by_lot_does_not_count() {
        let body = |id: &str, directory: &str| json!({"model": "m", "messages": [{"id": id, "said": format!("{id} at /files/output/{directory}/x")}]});
        let first = body(ONE, "0123456789abcdef");
        assert_eq!(digest(&first), digest(&body(OTHER, "fedcba9876543210")));
        let server = |id: &str| format!("srv{id} and {id}");
        assert_eq!(digest(&json!({"a": server(ONE)})), digest(&json!({"a": server(OTHER)})));
        // Two calls are not one call twice.
        assert_ne!(digest(&json!({"a": [ONE, OTHER]})), digest(&json!({"a": [ONE, ONE]})));
        // What only looks like it counts.
        for (left, right) in
            [("toolu_a", "toolu_b"), ("xtoolu_0123456789ABCDEFGHJKLMNP", "xtoolu_01zyxwvutsrqponmkjihgfed")]
        {
            assert_ne!(digest(&json!({"a": left})), digest(&json!({"a": right})));
        }
    }

    #[test]
    fn the_order_of_members_does_not_count_and_that_of_items_does() {
        assert_eq!(digest(&json!({"a": 1, "b": {"c": 2, "d": 3}})), digest(&json!({"b": {"d": 3, "c": 2}, "a": 1})));
        assert_ne!(digest(&json!({"a": [1, 2]})), digest(&json!({"a": [2, 1]})));
        let of = |endpoint, betas| Canonical::of(endpoint, betas, &json!({})).digest();
        assert_ne!(of(Endpoint::Messages, None), of(Endpoint::CountTokens, None));
        assert_ne!(of(Endpoint::Messages, None), of(Endpoint::Messages, Some("effort-2027-01-01")));
    }

    #[test]
    fn the_digest_is_that_of_the_form_that_is_documented() {
        // Other programs may make it: `printf 'messages\n\n{"a":[1],"b":"x"}' | sha256sum`.
        let expected = "a258f6317a8a9237cb63a7ffd7dc0bf3043a11c9a324a5109cb60a1a6ca8b16c";
        assert_eq!(digest(&json!({"b": "x", "a": [1]})).to_string(), expected);
    }

    #[test]
    fn the_first_difference_is_named() {
        let cases = [
            (json!({"model": "m"}), json!({"model": "n"}), "at `model` it has \"m\", and was asked \"n\""),
            (json!({"a": 1}), json!({"a": 1, "b": 2}), "at `b` it has null, and was asked 2"),
            (
                json!({"messages": [{"content": "hello"}]}),
                json!({"messages": [{"content": "help"}]}),
                "at `messages.0.content` it has \"hello\", and was asked \"help\"",
            ),
            (json!({"a": [1]}), json!({"a": [1, 2]}), "at `a` it has 1 items, and was asked 2 items"),
            (json!({"a": [1]}), json!({"a": [3, 2]}), "at `a.0` it has 1, and was asked 3"),
        ];
        for (recorded, asked, expected) in cases {
            let of = |body: &Value| Canonical::of(Endpoint::Messages, None, body);
            let found = of(&asked).differs_from(&of(&recorded)).map(|difference| difference.to_string());
            assert_eq!(found.as_deref(), Some(expected));
        }
    }
}
