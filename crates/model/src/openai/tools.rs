//! Tools and the choice among them in this dialect.

use std::sync::LazyLock;

use belljar_wire::tool::{ToolChoice, ToolChoiceMode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::body::Unfit;
use crate::lower::PlainTool;

/// A tool that the vendor of the Messages API defines and the caller runs, as a function.
#[derive(Deserialize)]
struct VendorTool {
    /// What its tags begin with, before the date.
    tag: String,
    description: String,
    input_schema: Value,
}

static VENDOR_TOOLS: LazyLock<Vec<VendorTool>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../data/vendor_tools.json")).expect("a test reads the vendor's tools")
});

/// Length of `_20260101`.
const DATE_BYTES: usize = 9;

/// The tools as functions, in order.
pub(super) fn lowered(tools: Vec<PlainTool>) -> Result<Vec<Value>, Unfit> {
    tools.into_iter().map(function).collect()
}

fn function(tool: PlainTool) -> Result<Value, Unfit> {
    let (name, description, schema, rest) = match tool {
        PlainTool::Schema { name, description, input_schema, rest } => (name, description, input_schema, rest),
        PlainTool::Vendor { tag, name, rest } => {
            let known = tag.len().checked_sub(DATE_BYTES).and_then(|end| tag.get(..end));
            let found = known.and_then(|known| VENDOR_TOOLS.iter().find(|tool| tool.tag == known));
            let Some(tool) = found else {
                return Err(Unfit(format!(
                    "tools: the model's upstream does not know `{tag}`; declare `{name}` with an `input_schema` of its own"
                )));
            };
            (name, Some(tool.description.clone()), tool.input_schema.clone(), rest)
        }
        PlainTool::Hosted { kind, .. } => {
            return Err(Unfit(format!("tools: the model's upstream cannot run `{}`", kind.tag)));
        }
    };
    let mut function = json!({"name": name});
    if let Some(description) = description {
        function["description"] = description.into();
    }
    function["parameters"] = with_properties(schema);
    if rest.get("strict") == Some(&Value::Bool(true)) {
        function["strict"] = true.into();
    }
    Ok(json!({"type": "function", "function": function}))
}

/// Some servers refuse the schema of an object that names no properties.
fn with_properties(mut schema: Value) -> Value {
    if let Some(members) = schema.as_object_mut()
        && members.get("type").is_some_and(|tag| tag == "object")
        && !members.contains_key("properties")
    {
        members.insert("properties".to_owned(), json!({}));
    }
    schema
}

/// `tool_choice` and `parallel_tool_calls`, where the request says something about them.
pub(super) fn choice(choice: Option<&ToolChoice>, tools_are_history: bool) -> Map<String, Value> {
    let mut members = Map::new();
    if tools_are_history {
        members.insert("tool_choice".to_owned(), "none".into());
        return members;
    }
    let Some(choice) = choice else {
        return members;
    };
    let mode = match &choice.mode {
        ToolChoiceMode::Auto => "auto".into(),
        ToolChoiceMode::Any => "required".into(),
        ToolChoiceMode::Tool(name) => json!({"type": "function", "function": {"name": name}}),
        ToolChoiceMode::None => "none".into(),
    };
    members.insert("tool_choice".to_owned(), mode);
    if choice.disable_parallel_tool_use && choice.mode != ToolChoiceMode::None {
        members.insert("parallel_tool_calls".to_owned(), false.into());
    }
    members
}
