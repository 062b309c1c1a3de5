//! Whether a value is what a JSON schema describes, said in words: what `guest/python/schema.py` is for Python, by the same rules
//! and in the same words, held against the same cases (`guest/python/tests/schemas.json`).
//!
//! Of the schema's words it knows those in [`WORDS`], and takes no notice of others. A schema that makes no sense asks for
//! nothing: whoever answers the call looks at it anyway. So this is a help for the author of the code, and guards nobody.

mod compare;
mod words;

use serde_json::{Map, Value};

use compare::{is, same, shown};

/// Looks at parts of a value; beyond, the rest is taken for good.
const STEPS_MAX: usize = 100_000;
const DEPTH_MAX: usize = 200;

/// What is wrong with a value; none if nothing is.
pub fn complaint(value: &Value, schema: &Value) -> Option<String> {
    Check { root: schema, steps: 0, depth: 0 }.of(value, schema, "")
}

/// One check of a whole value.
struct Check<'a> {
    root: &'a Value,
    steps: usize,
    depth: usize,
}

/// What one word of a schema is held against.
struct Asked<'a> {
    value: &'a Value,
    /// What the word says.
    operand: &'a Value,
    /// Where the word stands.
    schema: &'a Map<String, Value>,
    path: &'a str,
}

/// What a word says that makes no sense.
struct NoSense;

/// A complaint, or none.
type Found = Result<Option<String>, NoSense>;
type Word = fn(&mut Check<'_>, &Asked<'_>) -> Found;

/// Every word that is known, in the order in which their complaints help most.
const WORDS: [(&str, Word); 28] = [
    ("$ref", words::reference),
    ("type", words::kind),
    ("enum", words::one_of_these),
    ("const", words::exactly),
    ("required", words::required),
    ("properties", words::properties),
    ("patternProperties", words::pattern_properties),
    ("additionalProperties", words::additional),
    ("propertyNames", words::property_names),
    ("prefixItems", words::prefix_items),
    ("items", words::items),
    ("uniqueItems", words::unique),
    ("minimum", |_, asked| asked.bound("at least", |order| order.is_ge())),
    ("maximum", |_, asked| asked.bound("at most", |order| order.is_le())),
    ("exclusiveMinimum", |_, asked| asked.bound("more than", |order| order.is_gt())),
    ("exclusiveMaximum", |_, asked| asked.bound("less than", |order| order.is_lt())),
    ("multipleOf", words::multiple),
    ("pattern", words::pattern),
    ("minLength", |_, asked| asked.size("string", "at least", "characters", |order| order.is_ge())),
    ("maxLength", |_, asked| asked.size("string", "at most", "characters", |order| order.is_le())),
    ("minItems", |_, asked| asked.size("array", "at least", "items", |order| order.is_ge())),
    ("maxItems", |_, asked| asked.size("array", "at most", "items", |order| order.is_le())),
    ("minProperties", |_, asked| asked.size("object", "at least", "keys", |order| order.is_ge())),
    ("maxProperties", |_, asked| asked.size("object", "at most", "keys", |order| order.is_le())),
    ("allOf", words::all_of),
    ("anyOf", words::any_of),
    ("oneOf", words::one_of),
    ("not", words::none_of),
];

impl Check<'_> {
    /// The first complaint about a part of the value.
    fn of(&mut self, value: &Value, schema: &Value, path: &str) -> Option<String> {
        self.steps += 1;
        let schema = match schema {
            Value::Bool(false) => return Some(format!("{} is not allowed", place(path))),
            Value::Object(schema) if self.steps <= STEPS_MAX && self.depth <= DEPTH_MAX => schema,
            _ => return None,
        };
        self.depth += 1;
        let found = WORDS.iter().find_map(|(word, check)| {
            let asked = Asked { value, operand: schema.get(*word)?, schema, path };
            check(self, &asked).ok().flatten()
        });
        self.depth -= 1;
        found
    }
}

fn under(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn place(path: &str) -> &str {
    if path.is_empty() { "the argument" } else { path }
}

fn within(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The same cases as for Python, whose texts they are.
    #[test]
    fn values_are_judged_as_python_judges_them() {
        let cases: Vec<Value> =
            serde_json::from_str(include_str!("../../../python/tests/schemas.json")).expect("the cases");
        assert!(cases.len() > 30);
        for case in &cases {
            let schema = &case["schema"];
            for value in case["fit"].as_array().expect("values") {
                assert_eq!(complaint(value, schema), None, "{value} by {schema}");
            }
            for value in case["do_not"].as_array().expect("values") {
                let said = complaint(&value["value"], schema);
                assert_eq!(said.as_deref(), value["complaint"].as_str(), "{value} by {schema}");
            }
        }
    }

    #[test]
    fn what_takes_too_long_is_taken_for_good() {
        let endless: Value = serde_json::from_str(r##"{"$ref": "#", "minimum": 5}"##).expect("a schema");
        assert_eq!(complaint(&Value::from(6), &endless), None);
        // Two ways at each of sixty levels, and nothing at the end of any that fits.
        let mut levels = Map::from_iter([("0".to_owned(), Value::Bool(false))]);
        for level in 1..=60 {
            let below = json!({ "$ref": format!("#/$defs/{}", level - 1) });
            levels.insert(level.to_string(), json!({ "anyOf": [below.clone(), below] }));
        }
        let fork = json!({ "$ref": "#/$defs/60", "$defs": levels });
        assert_eq!(complaint(&Value::Null, &fork), None);
        let many: Value = (0..1000).map(Value::from).collect::<Vec<_>>().into();
        assert_eq!(complaint(&many, &json!({ "uniqueItems": true })), None);
    }
}
