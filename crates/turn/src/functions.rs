//! Python functions that stand for tools: a name of Python's own for each (wire.md §10.2).
//!
//! The wire lets a tool's name have dashes and begin with a digit, and lets it be a word that Python needs. How the hosted API
//! maps those is not documented; what is chosen here is told to the model, and depends on nothing but the tools and their order.

use std::collections::HashMap;

use belljar_wire::host_tool::HostToolKind;
use belljar_wire::tool::Tool;
use serde_json::{Value, json};

use crate::call::{AnsweredBy, CodeTool};

/// Keywords and builtins of Python 3.13, and the module that the tool text tells the model to use.
const TAKEN: &str = include_str!("../data/python_names.txt");

/// The tools as code calls them, in their order.
pub(crate) fn code_tools(tools: &[&Tool]) -> Vec<CodeTool> {
    let functions = functions(tools.iter().map(|tool| tool.name().unwrap_or_default()));
    let described = |(tool, function): (&&Tool, String)| {
        let (description, input_schema) = match tool {
            Tool::Custom(tool) => (tool.description.clone(), tool.input_schema.clone()),
            Tool::Host(tool) => {
                let (description, schema) = of_host(tool.kind);
                (Some(description.trim_end().to_owned()), schema)
            }
            Tool::Vendor(tool) => {
                (Some(format!("The tool of type `{}`, with the input you know.", tool.tag)), any_object())
            }
            // No code calls these.
            Tool::CodeExecution(_) | Tool::Hosted(_) => (None, any_object()),
        };
        let answered_by = match tool {
            Tool::Host(tool) => AnsweredBy::Host(tool.kind),
            Tool::Custom(_) | Tool::Vendor(_) | Tool::Hosted(_) | Tool::CodeExecution(_) => AnsweredBy::Client,
        };
        CodeTool { name: tool.name().unwrap_or_default().to_owned(), function, description, input_schema, answered_by }
    };
    tools.iter().zip(functions).map(described).collect()
}

/// What is told of a tool of ours, and the schema of its input.
fn of_host(kind: HostToolKind) -> (&'static str, Value) {
    let (description, schema) = match kind {
        HostToolKind::Files => (include_str!("../data/files.txt"), include_str!("../data/files.schema.json")),
    };
    (description, serde_json::from_str(schema).expect("the schemas in data/ are JSON; a test reads them all"))
}

/// A schema for inputs of which only their model knows more.
fn any_object() -> Value {
    json!({ "type": "object" })
}

/// An identifier for each name: the name itself where it is one and Python has no use for it; else the nearest one that is free.
/// Names that need no change keep theirs whoever stands before them.
fn functions<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    // Each taken name, with the number that its next namesake tries.
    let mut taken: HashMap<String, usize> = TAKEN.lines().map(|name| (name.to_owned(), 2)).collect();
    let mut own: Vec<Option<String>> = Vec::new();
    for name in names.clone() {
        let free = is_identifier(name) && !taken.contains_key(name);
        if free {
            taken.insert(name.to_owned(), 2);
        }
        own.push(free.then(|| name.to_owned()));
    }
    own.into_iter().zip(names).map(|(own, name)| own.unwrap_or_else(|| nearest(name, &mut taken))).collect()
}

/// Names of the wire are ASCII, so these are Python's rules. `_` is where code puts what it has no use for, and names with two
/// underscores in front are Python's own.
fn is_identifier(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins_well = !name.starts_with(|first: char| first.is_ascii_digit()) && !name.starts_with("__");
    name.bytes().all(legal) && begins_well && name != "_"
}

fn nearest(name: &str, taken: &mut HashMap<String, usize>) -> String {
    let mut wanted = name.replace('-', "_");
    if !is_identifier(&wanted) {
        wanted.insert_str(0, "tool_");
    }
    let Some(mut number) = taken.get(&wanted).copied() else {
        taken.insert(wanted.clone(), 2);
        return wanted;
    };
    let free = loop {
        let numbered = format!("{wanted}_{number}");
        number = number.saturating_add(1);
        if !taken.contains_key(&numbered) {
            break numbered;
        }
    };
    taken.insert(wanted, number);
    taken.insert(free.clone(), 2);
    free
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_become_functions() {
        let cases: [(&[&str], &[&str]); 8] = [
            (&["query_db", "Q2", "_x"], &["query_db", "Q2", "_x"]),
            (&["query-db", "2nd-try", "-"], &["query_db", "tool_2nd_try", "tool__"]),
            (&["print", "class", "asyncio", "None"], &["print_2", "class_2", "asyncio_2", "None_2"]),
            (&["__import__", "__name"], &["tool___import__", "tool___name"]),
            // Whoever needs no change keeps its name, also behind one that would take it.
            (&["a-b", "a_b", "a-_b"], &["a_b_2", "a_b", "a__b"]),
            (&["print", "print_2"], &["print_3", "print_2"]),
            (&["a-b-c", "a_b-c", "a-b_c"], &["a_b_c", "a_b_c_2", "a_b_c_3"]),
            (&["--", "match", "_", "-"], &["tool___", "match", "tool__", "tool___2"]),
        ];
        for (names, expected) in cases {
            assert_eq!(functions(names.iter().copied()), expected, "{names:?}");
        }
    }

    proptest! {
        #[test]
        fn each_has_one_of_its_own(names in prop::collection::hash_set("[a-b0_-]{1,4}|print|class", 0..40)) {
            let names: Vec<String> = names.into_iter().collect();
            let functions = functions(names.iter().map(String::as_str));
            prop_assert_eq!(functions.len(), names.len());
            let distinct: std::collections::HashSet<&String> = functions.iter().collect();
            prop_assert_eq!(distinct.len(), functions.len());
            for (function, name) in functions.iter().zip(&names) {
                prop_assert!(is_identifier(function), "{function}");
                prop_assert!(!TAKEN.lines().any(|taken| taken == function), "{function}");
                let untouched = is_identifier(name) && !TAKEN.lines().any(|taken| taken == name);
                prop_assert_eq!(untouched, function == name);
            }
        }
    }
}
