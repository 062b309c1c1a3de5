//! What a model can do, by the operator's word: a request that it cannot serve is refused before it is asked, with the reason.

use belljar_wire::block::{Content, ContentBlock};
use belljar_wire::sampling::SamplingRequest;
use serde_json::Value;

use crate::config::Capabilities;
use crate::estimate::estimate;
use crate::upstream::SamplingHints;

/// The reason why a model cannot serve a request; none when nothing is known against it.
pub(crate) fn unfit(can: &Capabilities, request: &SamplingRequest, hints: &SamplingHints) -> Option<String> {
    let model = &request.model;
    if can.tools == Some(false) && !request.tools.is_empty() {
        return Some(format!("tools: the model `{model}` cannot call tools"));
    }
    if can.thinking == Some(false) && request.thinking.as_ref().is_some_and(|thinking| thinking["type"] != "disabled") {
        return Some(format!("thinking: the model `{model}` does not think"));
    }
    let blocks = || request.messages.iter().flat_map(|message| message.content.blocks());
    if can.vision == Some(false) && blocks().any(|block| holds(block, "image")) {
        return Some(format!("messages: the model `{model}` takes no images"));
    }
    if can.documents == Some(false) && blocks().any(|block| holds(block, "document")) {
        return Some(format!("messages: the model `{model}` takes no documents"));
    }
    let limit = can.context_tokens_max?;
    let tokens = estimate(request, &hints.files);
    (tokens > limit).then(|| format!("prompt is too long: {tokens} tokens > {limit} maximum"))
}

/// Whether media of that kind is in a block. A document that is text is text.
fn holds(block: &ContentBlock, tag: &str) -> bool {
    match block {
        ContentBlock::Passive(passive) => {
            let is_text =
                passive.members.get("source").and_then(|source| source.get("type")) == Some(&Value::from("text"));
            passive.tag() == tag && !is_text
        }
        ContentBlock::ToolResult(result) => {
            result.content.as_ref().map_or(&[][..], Content::blocks).iter().any(|inner| holds(inner, tag))
        }
        _ => false,
    }
}
