//! Which result answers which call, and what each call is named upstream.

use std::collections::{HashMap, HashSet};

use belljar_wire::block::{ContentBlock, ServerResultBlock, ToolResultBlock};
use belljar_wire::request::InputMessage;
use belljar_wire::tool::{Caller, SubTool};
use serde_json::Value;

/// Where a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) message: usize,
    pub(super) index: usize,
}

/// What answers a call.
#[derive(Clone, Copy)]
pub(super) enum Answer<'a> {
    Client(&'a ToolResultBlock),
    Server(&'a ServerResultBlock),
}

/// The calls of a history, numbered in their order, with their answers.
///
/// An id may name several calls one after the other: not every upstream draws fresh ones, and a client may resend. A result
/// answers the latest call of its id that stands before it and has no result yet.
#[derive(Default)]
pub(super) struct Calls<'a> {
    calls: Vec<Call<'a>>,
    by_place: HashMap<Place, usize>,
    by_answer: HashMap<Place, usize>,
    hidden_answers: HashSet<Place>,
    /// Calls without an answer so far.
    open: HashMap<&'a str, Vec<Open>>,
    /// Lowered ids that are taken, each with the number that its next namesake tries.
    lowered_ids: HashMap<String, usize>,
}

struct Call<'a> {
    lowered_id: String,
    answer: Option<Answer<'a>>,
}

#[derive(Clone, Copy)]
enum Open {
    Call(usize),
    /// Made by code: the model sees neither call nor answer.
    Hidden,
}

impl<'a> Calls<'a> {
    pub(super) fn index(messages: &'a [InputMessage]) -> Self {
        let mut calls = Self::default();
        for (message, input) in messages.iter().enumerate() {
            for (index, block) in input.content.blocks().iter().enumerate() {
                calls.meet(Place { message, index }, block);
            }
        }
        calls
    }

    fn meet(&mut self, place: Place, block: &'a ContentBlock) {
        match block {
            ContentBlock::ToolUse(call) => self.call(place, call.id.as_str(), block),
            ContentBlock::ServerToolUse(call) if SubTool::from_name(&call.name).is_some() => {
                self.call(place, call.id.as_str(), block);
            }
            ContentBlock::ToolResult(result) => {
                self.answer_with(place, &result.tool_use_id, Answer::Client(result));
            }
            ContentBlock::CodeExecutionToolResult(result)
            | ContentBlock::BashCodeExecutionToolResult(result)
            | ContentBlock::TextEditorCodeExecutionToolResult(result) => {
                self.answer_with(place, result.tool_use_id.as_str(), Answer::Server(result));
            }
            ContentBlock::ServerToolUse(_)
            | ContentBlock::Text(_)
            | ContentBlock::Thinking(_)
            | ContentBlock::RedactedThinking(_)
            | ContentBlock::ContainerUpload(_)
            | ContentBlock::Passive(_) => {}
        }
    }

    fn call(&mut self, place: Place, id: &'a str, block: &ContentBlock) {
        let open = self.open.entry(id).or_default();
        if made_by_code(block) {
            open.push(Open::Hidden);
            return;
        }
        let number = self.calls.len();
        open.push(Open::Call(number));
        let lowered_id = self.fresh_id(id);
        self.by_place.insert(place, number);
        self.calls.push(Call { lowered_id, answer: None });
    }

    /// `srvtoolu_X` becomes `toolu_X`, other ids stay; a number follows where that name is taken. Ids depend on what stands
    /// before them only, so they stay the same as the conversation grows.
    fn fresh_id(&mut self, id: &str) -> String {
        let wanted = match id.strip_prefix("srvtoolu_") {
            Some(suffix) => format!("toolu_{suffix}"),
            None => id.to_owned(),
        };
        let mut number = match self.lowered_ids.get(&wanted) {
            None => {
                self.lowered_ids.insert(wanted.clone(), 2);
                return wanted;
            }
            Some(next) => *next,
        };
        let id = loop {
            let id = format!("{wanted}_{number}");
            number = number.saturating_add(1);
            if !self.lowered_ids.contains_key(&id) {
                break id;
            }
        };
        self.lowered_ids.insert(wanted, number);
        self.lowered_ids.insert(id.clone(), 2);
        id
    }

    fn answer_with(&mut self, place: Place, id: &str, answer: Answer<'a>) {
        match self.open.get_mut(id).and_then(Vec::pop) {
            Some(Open::Call(number)) => {
                self.by_answer.insert(place, number);
                if let Some(call) = self.calls.get_mut(number) {
                    call.answer = Some(answer);
                }
            }
            Some(Open::Hidden) => {
                self.hidden_answers.insert(place);
            }
            None => {}
        }
    }

    /// The call that stands here; none when code made it.
    pub(super) fn at(&self, place: Place) -> Option<usize> {
        self.by_place.get(&place).copied()
    }

    /// The call that the result here answers.
    pub(super) fn answered_by(&self, place: Place) -> Option<usize> {
        self.by_answer.get(&place).copied()
    }

    /// Whether the result here is for code, not for the model.
    pub(super) fn is_hidden_answer(&self, place: Place) -> bool {
        self.hidden_answers.contains(&place)
    }

    pub(super) fn lowered_id(&self, call: usize) -> &str {
        self.calls.get(call).map_or("", |call| &call.lowered_id)
    }

    pub(super) fn answer(&self, call: usize) -> Option<Answer<'a>> {
        self.calls.get(call).and_then(|call| call.answer)
    }
}

/// Whether code made this call, or got this result.
pub(super) fn made_by_code(block: &ContentBlock) -> bool {
    match block {
        ContentBlock::ToolUse(call) => matches!(call.caller, Some(Caller::Code(_))),
        ContentBlock::ServerToolUse(call) => matches!(call.caller, Some(Caller::Code(_))),
        ContentBlock::Passive(passive) => {
            let caller = passive.members.get("caller");
            let tag = caller.and_then(|caller| caller.get("type")).and_then(Value::as_str);
            tag.is_some_and(|tag| tag.starts_with("code_execution_"))
        }
        ContentBlock::Text(_)
        | ContentBlock::Thinking(_)
        | ContentBlock::RedactedThinking(_)
        | ContentBlock::ToolResult(_)
        | ContentBlock::CodeExecutionToolResult(_)
        | ContentBlock::BashCodeExecutionToolResult(_)
        | ContentBlock::TextEditorCodeExecutionToolResult(_)
        | ContentBlock::ContainerUpload(_) => false,
    }
}
