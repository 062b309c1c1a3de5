//! Tools that the model's vendor runs: their blocks pass through, and an upstream that breaks the rules of calls and answers is
//! stopped, for what it says is what the client would send back.

use std::collections::{HashMap, HashSet};

use belljar_ids::ServerToolUseId;
use belljar_wire::block::ContentBlock;
use belljar_wire::error::ApiError;
use belljar_wire::hosted_tool::{HostedAnswer, HostedBlock, HostedCall, HostedFamily};
use belljar_wire::read::Brief;
use belljar_wire::sampling::{ModelTool, SamplingRequest};
use serde_json::Value;

use super::sampling::out_of_order;

/// What of the conversation decides which such blocks may come.
#[derive(Debug, Default)]
pub(crate) struct Hosted {
    /// Declared tools by their names.
    tools: HashMap<&'static str, HostedFamily>,
    /// Declared MCP servers.
    servers: HashSet<String>,
    /// Ids of every server tool's call, ours and the vendor's.
    used: HashSet<String>,
    /// The vendor's calls without an answer, of earlier replies, too (wire.md §13).
    open: HashMap<String, HostedFamily>,
}

impl Hosted {
    /// Follows the calls of a conversation, if its request has any use for that.
    pub(crate) fn of(request: &SamplingRequest) -> Self {
        let mut hosted = Self::default();
        for tool in &request.tools {
            match tool {
                ModelTool::Hosted(tool) => hosted.tools.extend(tool.kind.name.map(|name| (name, tool.kind.family))),
                ModelTool::Custom(_) | ModelTool::Vendor(_) | ModelTool::Server { .. } => {}
            }
        }
        let servers = request.rest.get("mcp_servers").and_then(Value::as_array).into_iter().flatten();
        hosted.servers.extend(servers.filter_map(|server| server.get("name")?.as_str().map(str::to_owned)));
        if !hosted.is_in_use() {
            return hosted;
        }
        for block in request.messages.iter().flat_map(|message| message.content.blocks()) {
            match HostedBlock::of(block) {
                Some(HostedBlock::Call(call)) => {
                    hosted.used.insert(call.id().to_owned());
                    let family = hosted.family_of(&call);
                    hosted.open.extend(family.map(|family| (call.id().to_owned(), family)));
                }
                Some(HostedBlock::Answer(answer)) => _ = hosted.open.remove(&answer.tool_use_id),
                Some(HostedBlock::Listing(_)) | None => {}
            }
        }
        hosted
    }

    fn is_in_use(&self) -> bool {
        !self.tools.is_empty() || !self.servers.is_empty()
    }

    fn family_of(&self, call: &HostedCall) -> Option<HostedFamily> {
        match call {
            HostedCall::Tool(call) => self.tools.get(call.name.as_str()).copied(),
            HostedCall::Mcp { server, .. } => self.servers.contains(server).then_some(HostedFamily::Mcp),
        }
    }

    /// A call of ours has got its id.
    pub(crate) fn is_ours(&mut self, id: &ServerToolUseId) {
        if self.is_in_use() {
            self.used.insert(id.as_str().to_owned());
        }
    }

    /// The upstream says that a tool is called.
    pub(crate) fn called(&mut self, call: &HostedCall) -> Result<(), ApiError> {
        let Some(family) = self.family_of(call) else {
            let name = match call {
                HostedCall::Tool(call) => call.name.as_str(),
                HostedCall::Mcp { server, .. } => server,
            };
            return Err(out_of_order(&format!("a call of `{}`, which the vendor was not given", Brief(name))));
        };
        if call.is_from_code() {
            return Err(out_of_order("a call of the vendor's tool from code that does not run there"));
        }
        if !self.used.insert(call.id().to_owned()) {
            return Err(out_of_order(&format!("a second call with the id {}", Brief(call.id()))));
        }
        self.open.insert(call.id().to_owned(), family);
        Ok(())
    }

    /// The upstream says what a call came to.
    pub(crate) fn answered(&mut self, answer: &HostedAnswer) -> Result<(), ApiError> {
        match self.open.remove(&answer.tool_use_id) {
            Some(family) if family == answer.family => Ok(()),
            Some(_) => Err(out_of_order("the result of a call is another tool's")),
            None => {
                let id = Brief(&answer.tool_use_id);
                Err(out_of_order(&format!("a `{}` for no open call: {id}", answer.block.tag())))
            }
        }
    }

    /// A list of what a connector has.
    pub(crate) fn listed(&self) -> Result<(), ApiError> {
        match self.servers.is_empty() {
            true => Err(out_of_order("the list of an MCP server that the vendor was not given")),
            false => Ok(()),
        }
    }
}

/// The block of a call that has begun.
pub(crate) fn begun(call: &HostedCall) -> ContentBlock {
    call.with_input(Value::Object(serde_json::Map::new()))
}
