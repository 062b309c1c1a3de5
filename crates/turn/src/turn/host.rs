//! Calls that code makes of tools of ours: answered within the reply, without a round trip to the client (wire.md §14).

use std::collections::HashMap;

use belljar_ids::ServerToolUseId;
use belljar_wire::block::ServerToolUseBlock;
use belljar_wire::host_tool::{HostToolAnswer, HostToolKind, result_block};
use serde_json::{Map, Value};

use super::{Phase, Turn, broken};
use crate::call::{AnsweredBy, code_of};
use crate::effect::{CallAnswer, CodeCall, Effect, HostToolCall};

/// A call that is being answered.
pub(super) struct Asked {
    /// The sandbox's number for it.
    number: u64,
    /// Its name on the wire.
    id: ServerToolUseId,
    kind: HostToolKind,
}

impl Turn {
    /// Shows the calls of our tools and asks for their answers. Calls of the client's tools beside them are not told yet: the cell
    /// calls them again when it waits again, with whatever else it has to ask by then.
    pub(super) fn call_host_tools(
        &mut self,
        cell: ServerToolUseId,
        calls: Vec<CodeCall>,
        callable: &HashMap<&str, AnsweredBy>,
    ) {
        let (mut asked, mut wanted) = (Vec::new(), Vec::new());
        for CodeCall { number, tool, input } in calls {
            let Some(AnsweredBy::Host(kind)) = callable.get(tool.as_str()).copied() else {
                continue;
            };
            let id = ServerToolUseId::mint(self.ids.as_mut());
            self.hosted.is_ours(&id);
            let call = ServerToolUseBlock {
                id: id.clone(),
                name: kind.name().to_owned(),
                input: Value::Object(input.clone()),
                caller: Some(code_of(&cell)),
                rest: Map::new(),
            };
            if let Err(error) = self.reply.host_call(call) {
                return self.fail(error);
            }
            asked.push(Asked { number, id, kind });
            wanted.push(HostToolCall { kind, input });
        }
        match &mut self.phase {
            Phase::RunningCells(batch) => batch.asked = asked,
            Phase::Sampling(_) | Phase::Over => return self.fail(broken("calls of no running cell")),
        }
        self.reply.ask(Effect::CallHostTools { id: cell, calls: wanted });
    }

    /// Shows the answers, and lets the code go on with them.
    pub(super) fn host_tools_answered(&mut self, cell: &ServerToolUseId, answers: Vec<HostToolAnswer>) {
        let asked = match &mut self.phase {
            Phase::RunningCells(batch) if batch.running == *cell => std::mem::take(&mut batch.asked),
            Phase::Sampling(_) | Phase::RunningCells(_) | Phase::Over => Vec::new(),
        };
        if asked.is_empty() || asked.len() != answers.len() {
            return self.fail(broken("answers to no calls"));
        }
        let caller = code_of(cell);
        let mut told = Vec::with_capacity(asked.len());
        for (Asked { number, id, kind }, answer) in asked.into_iter().zip(answers) {
            let block = result_block(kind, &id, &caller, &answer);
            let (text, is_error) = match answer {
                HostToolAnswer::Text(text) => (text, false),
                HostToolAnswer::Error { error_code: _, error_message } => (error_message, true),
            };
            if let Err(error) = self.reply.host_result(block, &text) {
                return self.fail(error);
            }
            told.push(CallAnswer { number, text, is_error });
        }
        let tools = self.callable();
        self.reply.ask(Effect::AnswerCell { id: cell.clone(), answers: told, tools });
    }
}
