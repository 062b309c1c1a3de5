//! The conversation as planning sees it: who speaks in which stretch, and which calls have an answer.

use std::collections::{BTreeMap, HashMap, HashSet};

use belljar_ids::ServerToolUseId;
use belljar_wire::block::{Content, ContentBlock, ServerToolUseBlock, ToolUseBlock};
use belljar_wire::hosted_tool;
use belljar_wire::request::{InputMessage, Role};
use belljar_wire::tool::Caller;

/// The place of a block: `messages.N.content.M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) message: usize,
    pub(crate) block: usize,
}

/// Consecutive messages of one role, which count as one (wire.md §3). System messages in between change nothing.
#[derive(Debug)]
pub(crate) struct Stretch<'a> {
    pub(crate) role: Role,
    /// Its messages, with their places in the request.
    pub(crate) messages: Vec<(usize, &'a InputMessage)>,
    /// Server calls without an answer when the stretch ends.
    pub(crate) open_calls: usize,
}

impl<'a> Stretch<'a> {
    /// Its blocks, with their places.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (Place, &'a ContentBlock)> + '_ {
        self.messages.iter().flat_map(|(at, message)| {
            let blocks = message.content.blocks().iter().enumerate();
            blocks.map(|(block, content)| {
                let place = Place { message: *at, block };
                (place, content)
            })
        })
    }

    /// The ids of client tools that are called here, with the message that calls.
    pub(crate) fn client_calls(&self) -> impl Iterator<Item = (usize, &'a str)> + '_ {
        self.blocks().filter_map(|(place, block)| {
            let ContentBlock::ToolUse(call) = block else {
                return None;
            };
            Some((place.message, call.id.as_str()))
        })
    }

    /// The ids of the results at its very beginning.
    pub(crate) fn leading_results(&self) -> HashSet<&'a str> {
        let mut ids = HashSet::new();
        for (_, message) in &self.messages {
            match &message.content {
                Content::Text(_) => return ids,
                Content::Blocks(blocks) => {
                    for block in blocks {
                        let ContentBlock::ToolResult(result) = block else {
                            return ids;
                        };
                        ids.insert(&result.tool_use_id);
                    }
                }
            }
        }
        ids
    }

    /// Whether nothing but results of client tools is in it.
    pub(crate) fn only_results(&self) -> bool {
        self.messages.iter().all(|(_, message)| {
            let blocks = message.content.blocks();
            let results = |block| matches!(block, &ContentBlock::ToolResult(_));
            !blocks.is_empty() && blocks.iter().all(results)
        })
    }
}

/// A server call whose code waits for the client: what its code called last, all of it in the last reply (wire.md §10.3).
#[derive(Debug)]
pub(crate) struct Parked<'a> {
    pub(crate) call: &'a ServerToolUseBlock,
    /// In their order, with their places.
    pub(crate) calls: Vec<(Place, &'a ToolUseBlock)>,
}

/// What one pass over the conversation finds out.
#[derive(Debug)]
pub(crate) struct History<'a> {
    /// User and assistant stretches, alternating.
    pub(crate) stretches: Vec<Stretch<'a>>,
    /// Server calls that wait to be run first, in their order (wire.md §13).
    pub(crate) pending: Vec<&'a ServerToolUseBlock>,
    /// The first server call that the user spoke over (wire.md §19 row 10).
    pub(crate) spoken_over: Option<&'a ServerToolUseBlock>,
    /// The first result of a server tool of ours that answers no open call, with its `type`.
    pub(crate) stray_result: Option<(Place, &'static str, &'a ServerToolUseId)>,
    /// The first server call whose id was used before.
    pub(crate) repeated_call: Option<(Place, &'a ServerToolUseId)>,
    /// Server calls whose code has called tools.
    called_from: HashSet<&'a ServerToolUseId>,
    /// The cell that goes on with what the client sends now.
    pub(crate) parked: Option<Parked<'a>>,
    /// The first call of code in the reply that is gone on from that belongs to no cell that could go on.
    pub(crate) homeless_call: Option<(Place, &'a ToolUseBlock)>,
}

impl<'a> History<'a> {
    pub(crate) fn of(messages: &'a [InputMessage]) -> Self {
        let mut history = Self {
            stretches: stretches(messages),
            pending: Vec::new(),
            spoken_over: None,
            stray_result: None,
            repeated_call: None,
            called_from: HashSet::new(),
            parked: None,
            homeless_call: None,
        };
        history.settle_calls();
        history.find_parked();
        history
    }

    /// Finds whose code waits for the results in the last message: that of the calls in the reply before it.
    fn find_parked(&mut self) {
        let [.., reply, results] = self.stretches.as_slice() else {
            return;
        };
        if reply.role != Role::Assistant || results.role != Role::User {
            return;
        }
        let waiting: HashMap<&ServerToolUseId, &'a ServerToolUseBlock> =
            self.pending.iter().map(|call| (&call.id, *call)).collect();
        for (place, block) in reply.blocks() {
            let ContentBlock::ToolUse(made) = block else {
                continue;
            };
            let code = match &made.caller {
                Some(Caller::Code(caller)) => Some(caller),
                Some(Caller::Direct(_)) | None => None,
            };
            let Some(caller) = code else {
                continue;
            };
            match (&mut self.parked, waiting.get(&caller.tool_id)) {
                (None, Some(call)) => self.parked = Some(Parked { call, calls: vec![(place, made)] }),
                // One cell runs at a time, so one waits.
                (Some(parked), Some(call)) if parked.call.id == call.id => parked.calls.push((place, made)),
                (Some(_), Some(_)) | (_, None) => {
                    self.homeless_call.get_or_insert((place, made));
                }
            }
        }
    }

    /// Follows each server call to its result, which may stand in a later reply (wire.md §6).
    fn settle_calls(&mut self) {
        let mut ledger = Ledger::default();
        for index in 0..self.stretches.len() {
            let stretch = &self.stretches[index];
            match stretch.role {
                Role::Assistant => {
                    let blocks: Vec<_> = stretch.blocks().collect();
                    for (place, block) in blocks {
                        self.settle(&mut ledger, place, block);
                    }
                }
                Role::User | Role::System => {
                    if let (Some(call), false) = (ledger.first_open(), stretch.only_results()) {
                        self.spoken_over.get_or_insert(call);
                    }
                }
            }
            self.stretches[index].open_calls = ledger.open.len();
        }
        self.pending = ledger.open.into_values().collect();
    }

    fn settle(&mut self, ledger: &mut Ledger<'a>, place: Place, block: &'a ContentBlock) {
        let (tag, result) = match block {
            ContentBlock::ServerToolUse(call) => {
                self.note_caller(call.caller.as_ref());
                if !ledger.call(call) {
                    self.repeated_call.get_or_insert((place, &call.id));
                }
                return;
            }
            ContentBlock::ToolUse(call) => return self.note_caller(call.caller.as_ref()),
            ContentBlock::Passive(block) => {
                let id = block.members.get("tool_use_id");
                if let Some(id) = id.and_then(serde_json::Value::as_str) {
                    // A result of somebody else's server tool; whether it answers anything is theirs to say.
                    ledger.answer(id);
                }
                return;
            }
            ContentBlock::CodeExecutionToolResult(result) => ("code_execution_tool_result", result),
            ContentBlock::BashCodeExecutionToolResult(result) => ("bash_code_execution_tool_result", result),
            ContentBlock::TextEditorCodeExecutionToolResult(result) => {
                ("text_editor_code_execution_tool_result", result)
            }
            ContentBlock::Text(_)
            | ContentBlock::Thinking(_)
            | ContentBlock::RedactedThinking(_)
            | ContentBlock::ToolResult(_)
            | ContentBlock::ContainerUpload(_) => return,
        };
        if !ledger.answer(result.tool_use_id.as_str()) {
            self.stray_result.get_or_insert((place, tag, &result.tool_use_id));
        }
    }

    fn note_caller(&mut self, caller: Option<&'a Caller>) {
        match caller {
            Some(Caller::Code(caller)) => {
                self.called_from.insert(&caller.tool_id);
            }
            Some(Caller::Direct(_)) | None => {}
        }
    }

    /// The calls that wait and have themselves called tools from their code (wire.md §10).
    pub(crate) fn code_waiting(&self) -> impl Iterator<Item = &'a ServerToolUseBlock> + '_ {
        self.pending.iter().copied().filter(|call| self.called_from.contains(&call.id))
    }

    /// Whether the conversation ends with an assistant message.
    pub(crate) fn ends_with_assistant(&self) -> bool {
        self.stretches.last().is_some_and(|stretch| stretch.role == Role::Assistant)
    }

    /// Whether the conversation ends with a paused reply: in a server call, or right behind a server tool's result (wire.md §13.1).
    pub(crate) fn ends_with_pause(&self) -> bool {
        let last = self.stretches.last().filter(|_| self.ends_with_assistant());
        let last_block = last.and_then(|stretch| stretch.blocks().last());
        let result = last_block.is_some_and(|(_, block)| match block {
            ContentBlock::BashCodeExecutionToolResult(_)
            | ContentBlock::CodeExecutionToolResult(_)
            | ContentBlock::TextEditorCodeExecutionToolResult(_) => true,
            // An MCP call has an id of its own kind, and is not among the pending ones.
            ContentBlock::Passive(block) => hosted_tool::is_answer(block) || block.takes_input(),
            ContentBlock::Text(_)
            | ContentBlock::Thinking(_)
            | ContentBlock::RedactedThinking(_)
            | ContentBlock::ToolUse(_)
            | ContentBlock::ServerToolUse(_)
            | ContentBlock::ToolResult(_)
            | ContentBlock::ContainerUpload(_) => false,
        });
        result || (last.is_some() && !self.pending.is_empty())
    }

    /// The stretches of the turn being generated: those behind the last assistant stretch that called no client tool and left no
    /// server call open (wire.md §8.1).
    pub(crate) fn current_turn(&self) -> &[Stretch<'a>] {
        let last = self.stretches.len().saturating_sub(1);
        let completed = |(index, stretch): (usize, &Stretch<'_>)| {
            stretch.role == Role::Assistant
                && index != last
                && stretch.open_calls == 0
                && stretch.client_calls().next().is_none()
        };
        let begin = self
            .stretches
            .iter()
            .enumerate()
            .rev()
            .find_map(|(index, stretch)| completed((index, stretch)).then_some(index + 1));
        &self.stretches[begin.unwrap_or(0)..]
    }
}

fn stretches(messages: &[InputMessage]) -> Vec<Stretch<'_>> {
    let mut stretches: Vec<Stretch<'_>> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        if message.role == Role::System {
            continue;
        }
        match stretches.last_mut() {
            Some(last) if last.role == message.role => last.messages.push((at, message)),
            Some(_) | None => {
                stretches.push(Stretch { role: message.role, messages: vec![(at, message)], open_calls: 0 })
            }
        }
    }
    stretches
}

/// Server calls on the way to their results.
#[derive(Default)]
struct Ledger<'a> {
    /// Every id so far, with the order of its call.
    order: HashMap<&'a str, usize>,
    open: BTreeMap<usize, &'a ServerToolUseBlock>,
}

impl<'a> Ledger<'a> {
    /// Notes a call; false when its id was used before.
    fn call(&mut self, call: &'a ServerToolUseBlock) -> bool {
        let order = self.order.len();
        if self.order.contains_key(call.id.as_str()) {
            return false;
        }
        self.order.insert(call.id.as_str(), order);
        self.open.insert(order, call);
        true
    }

    /// Notes a result; false when it answers no open call.
    fn answer(&mut self, id: &str) -> bool {
        let order = self.order.get(id);
        order.is_some_and(|order| self.open.remove(order).is_some())
    }

    fn first_open(&self) -> Option<&'a ServerToolUseBlock> {
        self.open.values().next().copied()
    }
}
