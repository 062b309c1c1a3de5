//! From the wire's history to the plain dialect: messages that alternate, tools that are all the caller's.
//!
//! Upstreams know nothing of server tools. Here a `server_tool_use` becomes an ordinary `tool_use`, and its result an ordinary
//! `tool_result` in the user message that directly follows, wherever in the history the result stood (wire.md §10.5, §13).
//! Calls made by code, and their results, are no business of the model's and are left out (wire.md §10.2).
//!
//! Pure: no IO, no clock, and the same history always lowers to the same text, so that prompt caches hold.

mod history;
mod outcome;
mod plain;
mod tools;

use belljar_wire::sampling::SamplingRequest;

use crate::upstream::KnownFiles;
pub use history::messages;
pub use outcome::{Rendered, render};
pub use plain::{PlainBlock, PlainContent, PlainMessage, PlainTool, PlainToolResult, PlainToolUse};

/// The parts of a request that lowering changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plain {
    /// The conversation: no two neighbours have one role, each call is answered in the next message.
    pub messages: Vec<PlainMessage>,
    /// The tools, every one run by the caller as far as the upstream knows.
    pub tools: Vec<PlainTool>,
    /// The tools stand there only because the history calls them: the model is not to.
    pub tools_are_history: bool,
}

/// Lowers a request's conversation and tools. `files` says what file ids stand for.
pub fn lower(request: &SamplingRequest, files: &KnownFiles) -> Plain {
    let messages = messages(&request.messages, files);
    let offered = tools::offered(&request.tools);
    if !offered.is_empty() {
        return Plain { messages, tools: offered, tools_are_history: false };
    }
    let tools = tools::called(&request.messages);
    Plain { messages, tools_are_history: !tools.is_empty(), tools }
}
