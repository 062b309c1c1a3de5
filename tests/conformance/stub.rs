//! The surroundings of one turn: a model that says what was recorded, and a sandbox whose cells come to what was recorded.

use std::collections::{HashMap, VecDeque};

use belljar_ids::{ContainerId, FileId, SeededIds, ServerToolUseId};
use belljar_turn::{CallResult, CodeCall, EditCall, Effect, Input, ServerCall, Turn};
use belljar_wire::block::ContentBlock;
use belljar_wire::container::ContainerInfo;
use belljar_wire::error::ApiError;
use belljar_wire::event::StreamEvent;
use belljar_wire::message::StopReason;
use belljar_wire::sampling::SamplingEvent;
use belljar_wire::tool::{Caller, ToolVersion};
use serde_json::{Value, json};

use crate::pieces::{Call, Piece, Reply};

/// Plays one recorded reply.
pub struct Stub<'a> {
    reply: Reply,
    /// What the recording has of the calls that the model made, in their order, and how many of them were sent.
    calls: Vec<(String, Value)>,
    sent: usize,
    /// Our calls, with the recording's names for them.
    cells: HashMap<ServerToolUseId, String>,
    container: ContainerId,
    version: Option<ToolVersion>,
    /// Results that the recorded client sent, by the ids that it was told.
    results: HashMap<String, String>,
    /// Ids of the recording that have one of ours, and back.
    known: &'a mut HashMap<String, String>,
    ids: &'a mut SeededIds,
    /// What was sent.
    pub events: Vec<StreamEvent>,
    /// The turn failed before its first event.
    pub failed: Option<ApiError>,
}

/// What the stub has to know of a request.
pub struct Asked<'a> {
    pub body: &'a Value,
    pub container: Option<String>,
    pub version: Option<ToolVersion>,
}

/// How long a container has; the text does not matter.
const EXPIRES_AT: &str = "2026-11-29T10:00:00.000000Z";

impl<'a> Stub<'a> {
    pub fn new(
        reply: Reply,
        asked: &Asked<'_>,
        known: &'a mut HashMap<String, String>,
        ids: &'a mut SeededIds,
    ) -> Self {
        let named = asked.container.as_deref().and_then(|id| id.parse().ok());
        let container = named.unwrap_or_else(|| ContainerId::mint(ids));
        Self {
            reply,
            calls: Vec::new(),
            sent: 0,
            cells: HashMap::new(),
            container,
            version: asked.version,
            results: results(asked.body),
            known,
            ids,
            events: Vec::new(),
            failed: None,
        }
    }

    /// Carries out what the turn asks for until it is over; what goes another way than the recording ends it.
    pub fn play(&mut self, turn: &mut Turn, effects: Vec<Effect>) -> Result<(), String> {
        let mut effects = VecDeque::from(effects);
        let mut inputs: VecDeque<Input> = VecDeque::new();
        loop {
            while let Some(effect) = effects.pop_front() {
                inputs.extend(self.carry_out(effect)?);
            }
            if turn.over() {
                break;
            }
            let Some(input) = inputs.pop_front() else {
                return Err("the turn waits for nothing".to_owned());
            };
            effects.extend(turn.step(input));
        }
        if !inputs.is_empty() || !self.reply.pieces.is_empty() {
            let left = self.reply.pieces.len() + inputs.len();
            return Err(format!("the turn is over, and {left} recorded pieces are left"));
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<Vec<Input>, String> {
        match effect {
            Effect::Emit(event) => {
                self.note(&event);
                self.events.push(event);
                Ok(Vec::new())
            }
            Effect::Sample(_) => Ok(self.sampling()),
            Effect::RunCell { id, call } => {
                self.check_call(&id, &call)?;
                self.cell(id)
            }
            Effect::ResumeCell { id, results, .. } => {
                self.check_results(&results)?;
                self.cell(id)
            }
            Effect::Park { .. } | Effect::Finish(_) => Ok(Vec::new()),
            Effect::Fail(error) => {
                self.failed = Some(error);
                Ok(Vec::new())
            }
            Effect::CancelSampling | Effect::CancelCell(_) => Err("the turn gave up what was under way".to_owned()),
            Effect::CallHostTools { .. } | Effect::AnswerCell { .. } => {
                Err("code called a tool of ours, which no recording has".to_owned())
            }
        }
    }

    /// Learns the names of our calls, and that a call was answered without having been run.
    fn note(&mut self, event: &StreamEvent) {
        let StreamEvent::ContentBlockStart { content_block, .. } = event else { return };
        match &**content_block {
            ContentBlock::ServerToolUse(call) if !matches!(call.caller, Some(Caller::Code(_))) => {
                if let Some((recorded, _)) = self.calls.get(self.sent) {
                    self.cells.insert(call.id.clone(), recorded.clone());
                }
                self.sent += 1;
            }
            ContentBlock::CodeExecutionToolResult(result)
            | ContentBlock::BashCodeExecutionToolResult(result)
            | ContentBlock::TextEditorCodeExecutionToolResult(result) => {
                let recorded = self.recorded(&result.tool_use_id);
                self.reply.pieces.retain(|piece| !matches!(piece, Piece::Result { cell, .. } if *cell == recorded));
            }
            _ => {}
        }
    }

    /// The recording's name for a call: of this reply, or of an earlier one.
    fn recorded(&self, id: &ServerToolUseId) -> String {
        let earlier = || self.known.iter().find(|(_, ours)| *ours == id.as_str()).map(|(recorded, _)| recorded.clone());
        self.cells.get(id).cloned().or_else(earlier).unwrap_or_else(|| id.to_string())
    }

    /// What the model says until something else than the model is to speak. An upstream knows of no server tools: it says
    /// `tool_use` where it called any, unless it was cut off.
    fn sampling(&mut self) -> Vec<Input> {
        let (at_first, mut at_last) = self.reply.usage.clone();
        let mut events = vec![SamplingEvent::Started { usage: at_first }];
        let mut called = false;
        while matches!(self.reply.pieces.front(), Some(Piece::Sampled { .. })) {
            let Some(Piece::Sampled { events: block, call }) = self.reply.pieces.pop_front() else { break };
            events.extend(block);
            called |= call.is_some();
            if let Some(Call::Server { id, input }) = call {
                self.calls.push((id, input));
            }
        }
        let recorded = &self.reply.ending;
        let last = !self.reply.pieces.iter().any(|piece| matches!(piece, Piece::Sampled { .. }));
        let cut_off = match recorded.stop_reason {
            StopReason::MaxTokens
            | StopReason::StopSequence
            | StopReason::Refusal
            | StopReason::ModelContextWindowExceeded => true,
            StopReason::EndTurn | StopReason::ToolUse | StopReason::PauseTurn => false,
        };
        if !last {
            // The recording has the tokens of all samplings in one sum; counted for each, they would use up the request's.
            at_last.output_tokens = 0;
        }
        let as_recorded = last && (cut_off || !called);
        events.push(SamplingEvent::Ended {
            stop_reason: if as_recorded { recorded.stop_reason } else { StopReason::ToolUse },
            stop_sequence: recorded.stop_sequence.clone().filter(|_| as_recorded),
            stop_details: recorded.stop_details.clone().filter(|_| as_recorded),
            usage: at_last,
        });
        events.into_iter().map(Input::Sampled).collect()
    }

    /// What was recorded of a cell comes next: calls of its code, or its result.
    fn cell(&mut self, id: ServerToolUseId) -> Result<Vec<Input>, String> {
        let recorded = self.recorded(&id);
        let container = ContainerInfo { id: self.container.clone(), expires_at: EXPIRES_AT.to_owned() };
        let mut calls = Vec::new();
        self.reply.pieces.retain(|piece| match piece {
            Piece::Called { cell, tool, input } if *cell == recorded => {
                let number = calls.len() as u64;
                calls.push(CodeCall { number, tool: tool.clone(), input: input.clone() });
                false
            }
            Piece::Called { .. } | Piece::Sampled { .. } | Piece::Result { .. } => true,
        });
        if !calls.is_empty() {
            return Ok(vec![Input::CellCalled { id, calls, container }]);
        }
        let of_cell = |piece: &Piece| matches!(piece, Piece::Result { cell, .. } if *cell == recorded);
        let at = self.reply.pieces.iter().position(of_cell);
        let Some(Piece::Result { content, .. }) = at.and_then(|at| self.reply.pieces.remove(at)) else {
            return Err(format!("{recorded} runs, of which nothing more was recorded"));
        };
        let result = serde_json::from_value(self.outcome(content)).map_err(|error| format!("{recorded}: {error}"))?;
        Ok(vec![Input::CellEnded { id, result, container: Some(container) }])
    }

    /// A recorded result as a sandbox gives it: its files have ids of ours, and what a version leaves out is still there.
    fn outcome(&mut self, mut content: Value) -> Value {
        for file in content["content"].as_array_mut().into_iter().flatten() {
            if let Some(recorded) = file["file_id"].as_str() {
                let ours = self.known.entry(recorded.to_owned()).or_insert_with(|| FileId::mint(self.ids).to_string());
                file["file_id"] = Value::from(ours.clone());
            }
        }
        // The oldest version loses the last newline (wire.md §23).
        let stdout = content["stdout"].as_str().filter(|stdout| !stdout.is_empty());
        if let (Some(ToolVersion::V20250522), Some(stdout)) = (self.version, stdout) {
            content["stdout"] = Value::from(format!("{stdout}\n"));
        }
        content
    }

    /// What runs is what the model wrote.
    fn check_call(&self, id: &ServerToolUseId, call: &ServerCall) -> Result<(), String> {
        let recorded = self.recorded(id);
        let Some((_, input)) = self.calls.iter().find(|(known, _)| *known == recorded) else {
            // A call of an earlier reply; its own exchange has checked it.
            return Ok(());
        };
        let runs = match call {
            ServerCall::Bash { command, .. } => json!({ "command": command }),
            ServerCall::Python { code, .. } => json!({ "code": code }),
            ServerCall::Edit(EditCall::View { path, .. }) => json!({ "command": "view", "path": path }),
            ServerCall::Edit(EditCall::Create { path, file_text }) => {
                json!({ "command": "create", "path": path, "file_text": file_text })
            }
            ServerCall::Edit(EditCall::StrReplace { path, old_str, new_str }) => {
                json!({ "command": "str_replace", "path": path, "old_str": old_str, "new_str": new_str })
            }
        };
        let differs = runs.as_object().into_iter().flatten().find(|(key, value)| input[key.as_str()] != **value);
        differs.map_or(Ok(()), |(key, value)| Err(format!("{recorded} runs with another `{key}`: {value}")))
    }

    /// What code is told is what the client said.
    fn check_results(&self, results: &[CallResult]) -> Result<(), String> {
        for CallResult { tool_use_id, text, .. } in results {
            if self.results.get(tool_use_id.as_str()) != Some(text) {
                return Err(format!("code is told {text:?} as the result of {tool_use_id}"));
            }
        }
        if results.len() == self.results.len() {
            return Ok(());
        }
        Err(format!("code is told {} results of {}", results.len(), self.results.len()))
    }
}

/// The texts of the results in the last message.
fn results(body: &Value) -> HashMap<String, String> {
    let last = body["messages"].as_array().and_then(|messages| messages.last());
    let blocks = last.and_then(|message| message["content"].as_array()).into_iter().flatten();
    let results = blocks.filter(|block| block["type"] == "tool_result").map(|block| {
        let text = match &block["content"] {
            Value::String(text) => text.clone(),
            content => content.as_array().into_iter().flatten().filter_map(|text| text["text"].as_str()).collect(),
        };
        (block["tool_use_id"].as_str().unwrap_or_default().to_owned(), text)
    });
    results.collect()
}
