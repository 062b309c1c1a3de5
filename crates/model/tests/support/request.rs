//! A request of the Messages API as the loop would hand it on.

use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{ModelTool, SamplingRequest};
use belljar_wire::tool::Tool;

/// Everything of it; `tool` says what the model is offered for each of its tools. No betas.
pub fn sampling(read: MessagesRequest, tool: impl FnMut(Tool) -> Option<ModelTool>) -> SamplingRequest {
    SamplingRequest {
        tools: read.tools.into_iter().filter_map(tool).collect(),
        model: read.model,
        max_tokens: read.max_tokens,
        system: read.system,
        messages: read.messages,
        tool_choice: read.tool_choice,
        stop_sequences: read.stop_sequences,
        temperature: read.temperature,
        top_p: read.top_p,
        top_k: read.top_k,
        thinking: read.thinking,
        user_id: read.user_id,
        rest: read.rest,
        betas: Vec::new(),
    }
}
