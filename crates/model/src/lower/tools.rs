//! Tool definitions in the plain dialect.

use belljar_wire::block::ContentBlock;
use belljar_wire::request::InputMessage;
use belljar_wire::sampling::ModelTool;
use belljar_wire::tool::{CustomTool, SubTool};
use serde_json::{Map, Value, json};

use super::plain::PlainTool;

/// The tools that the request offers, in order.
pub(super) fn offered(tools: &[ModelTool]) -> Vec<PlainTool> {
    tools.iter().map(lowered).collect()
}

/// Bare definitions of the sub-tools that the history calls, for a request that offers no tool: upstreams refuse calls in a
/// history whose tools are not defined.
pub(super) fn called(messages: &[InputMessage]) -> Vec<PlainTool> {
    let calls = |sub_tool: SubTool| {
        let mut blocks = messages.iter().flat_map(|message| message.content.blocks());
        blocks.any(|block| match block {
            ContentBlock::ServerToolUse(call) => call.name == sub_tool.name(),
            _ => false,
        })
    };
    let called = SubTool::ALL.into_iter().filter(|sub_tool| calls(*sub_tool));
    let bare = |sub_tool: SubTool| PlainTool::Schema {
        name: sub_tool.name().to_owned(),
        description: Some("Not available any more.".to_owned()),
        input_schema: json!({"type": "object"}),
        rest: Map::new(),
    };
    called.map(bare).collect()
}

fn lowered(tool: &ModelTool) -> PlainTool {
    match tool {
        ModelTool::Custom(tool) => custom(tool),
        ModelTool::Vendor(tool) => {
            // Who may call a tool is settled by this server; the upstream has no code of ours that could.
            PlainTool::Vendor { tag: tool.tag.clone(), name: tool.name.clone(), rest: tool.rest.clone() }
        }
        ModelTool::Hosted(tool) => PlainTool::Hosted { kind: tool.kind, members: tool.members.clone() },
        ModelTool::Server { sub_tool, description, input_schema, cache_control } => PlainTool::Schema {
            name: sub_tool.name().to_owned(),
            description: Some(description.clone()),
            input_schema: input_schema.clone(),
            rest: cache_control.iter().map(|value| ("cache_control".to_owned(), value.clone())).collect(),
        },
    }
}

fn custom(tool: &CustomTool) -> PlainTool {
    let mut rest = tool.rest.clone();
    for (key, set) in [("strict", tool.strict), ("defer_loading", tool.defer_loading)] {
        if set {
            rest.insert(key.to_owned(), Value::Bool(true));
        }
    }
    PlainTool::Schema {
        name: tool.name.clone(),
        description: tool.description.clone(),
        input_schema: tool.input_schema.clone(),
        rest,
    }
}
