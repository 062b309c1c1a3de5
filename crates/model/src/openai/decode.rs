//! From chunks to sampling events. Every broken promise of the upstream is a fault with a text, never a panic.

use belljar_ids::{RequestId, SeededIds};
use belljar_wire::message::{StopReason, Usage};
use belljar_wire::read::Brief;
use belljar_wire::sampling::{SamplingEvent, SamplingRequest};
use serde_json::Value;

use super::Written;
use super::blocks::{Blocks, NamelessCall};
use super::chunk::{self, Chunk, Said};
use super::failure::Told;
use super::rescue::{Found, Offer, Rescuer};
use super::responses;
use crate::config::{Api, ChatSettings};
use crate::estimate;

/// What stands for a chunk at the end of a stream.
const DONE: &str = "[DONE]";

/// What a reply can come to instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DecodeFault {
    /// The upstream tells of an error.
    Error(Told),
    /// No reply of this dialect. The text is the operator's.
    Protocol(String),
}

/// What the decoder has to know of the request.
pub(super) struct Asked {
    request_id: RequestId,
    calls: usize,
    offered: Vec<String>,
    stop_sequences: Vec<String>,
    max_tokens: u64,
    /// An estimate of the input, until the upstream has counted, or for ever.
    input_tokens: u64,
    rescuer: Option<Rescuer>,
    api: Api,
}

impl Asked {
    pub(super) fn of(
        request: &SamplingRequest,
        request_id: &RequestId,
        written: &Written,
        settings: &ChatSettings,
    ) -> Self {
        Self {
            api: settings.api,
            rescuer: Rescuer::new(&settings.rescue, request),
            request_id: request_id.clone(),
            calls: written.calls,
            offered: request.tools.iter().filter_map(|tool| tool.name().map(str::to_owned)).collect(),
            stop_sequences: request.stop_sequences.clone(),
            max_tokens: request.max_tokens.min(settings.output_tokens_max.unwrap_or(u64::MAX)),
            input_tokens: written.input_tokens,
        }
    }
}

impl Asked {
    /// What can be told of a recorded body. Ids of calls are minted anew: nobody answers them.
    pub(super) fn of_body(body: &Value, settings: &ChatSettings) -> Self {
        let offers: Vec<Offer> = body["tools"].as_array().into_iter().flatten().filter_map(Offer::of_tool).collect();
        let stop_sequences = body["stop"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let limit =
            ["max_tokens", "max_completion_tokens", "max_output_tokens"].iter().find_map(|key| body[*key].as_u64());
        Self {
            request_id: RequestId::mint(&mut SeededIds::new(0)),
            calls: 0,
            offered: offers.iter().map(|offer| offer.name.clone()).collect(),
            stop_sequences: stop_sequences.map(str::to_owned).collect(),
            max_tokens: limit.unwrap_or(u64::MAX),
            input_tokens: estimate::of_body(body),
            rescuer: Rescuer::of(&settings.rescue, offers),
            api: settings.api,
        }
    }
}

#[cfg(fuzzing)]
impl Asked {
    pub(super) fn fuzzed(request_id: RequestId, offered: Vec<String>, rescuer: Option<Rescuer>, api: Api) -> Self {
        let stop_sequences = vec!["END".to_owned()];
        Self { request_id, calls: 0, offered, stop_sequences, max_tokens: 100, input_tokens: 0, rescuer, api }
    }
}

/// One reply being decoded.
pub(super) struct Decoder {
    stop_sequences: Vec<String>,
    max_tokens: u64,
    input_tokens: u64,
    rescuer: Option<Rescuer>,
    form: Form,
    blocks: Blocks,
    started: bool,
    refused: bool,
    usage: Option<Usage>,
    finish: Option<Finish>,
    ended: bool,
}

/// What a reply is written in.
enum Form {
    Chat,
    Responses(responses::Reader),
}

/// Why the model stopped.
#[derive(Clone, Debug)]
struct Finish {
    reason: Reason,
    stop_sequence: Option<String>,
}

/// What a `finish_reason` comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// It was done, or waits for its calls.
    Natural,
    Length,
    Refusal,
    /// It did not come to an end.
    Failure,
}

/// Words for it in lower case, of all makes.
const REASONS: [(&str, Reason); 22] = [
    ("stop", Reason::Natural),
    ("tool_calls", Reason::Natural),
    ("function_call", Reason::Natural),
    ("tool_use", Reason::Natural),
    ("end_turn", Reason::Natural),
    ("eos", Reason::Natural),
    ("eos_token", Reason::Natural),
    ("complete", Reason::Natural),
    ("stop_sequence", Reason::Natural),
    ("length", Reason::Length),
    ("max_tokens", Reason::Length),
    ("model_length", Reason::Length),
    ("content_filter", Reason::Refusal),
    ("refusal", Reason::Refusal),
    ("safety", Reason::Refusal),
    ("sensitive", Reason::Refusal),
    ("error", Reason::Failure),
    ("abort", Reason::Failure),
    ("cancelled", Reason::Failure),
    ("network_error", Reason::Failure),
    ("insufficient_system_resource", Reason::Failure),
    ("malformed_function_call", Reason::Failure),
];

impl Decoder {
    pub(super) fn new(asked: Asked) -> Self {
        let Asked { request_id, calls, offered, stop_sequences, max_tokens, input_tokens, rescuer, api } = asked;
        Self {
            stop_sequences,
            max_tokens,
            input_tokens,
            rescuer,
            form: match api {
                Api::Chat => Form::Chat,
                Api::Responses => Form::Responses(responses::Reader::default()),
            },
            blocks: Blocks::new(request_id, calls, offered),
            started: false,
            refused: false,
            usage: None,
            finish: None,
            ended: false,
        }
    }

    /// Whether the reply is complete: nothing that follows counts.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the model has finished. What may still come is usage.
    pub(super) fn finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Takes one chunk's text.
    pub(super) fn take(&mut self, data: &str) -> Result<Vec<SamplingEvent>, DecodeFault> {
        if self.ended || data.trim().is_empty() {
            return Ok(Vec::new());
        }
        if data.trim() == DONE {
            return self.end();
        }
        let chunk = match &mut self.form {
            Form::Chat => chunk::read(data),
            Form::Responses(reader) => reader.read(data),
        };
        self.take_chunk(chunk.map_err(DecodeFault::Protocol)?)
    }

    fn take_chunk(&mut self, chunk: Chunk) -> Result<Vec<SamplingEvent>, DecodeFault> {
        if let Some(told) = chunk.error {
            return Err(DecodeFault::Error(told));
        }
        let mut events = Vec::new();
        self.start(&mut events);
        self.usage = chunk.usage.or(self.usage.take());
        for said in chunk.said {
            match said {
                Said::Thinking(piece) => self.blocks.thinking(&piece),
                Said::Text(piece) => self.text(&piece),
                Said::Refusal(piece) => {
                    self.refused = true;
                    self.blocks.text(&piece);
                }
                Said::Call(piece) => self.blocks.call(piece),
            }
        }
        if let Some(word) = chunk.finish {
            let stop_sequence = chunk.stop_sequence.filter(|hit| self.stop_sequences.contains(hit));
            let reason = reason(&word);
            if reason == Reason::Failure {
                let message = format!("the model did not finish: `{}`", Brief(&word));
                return Err(DecodeFault::Error(Told::saying(message)));
            }
            self.finish = Some(Finish { reason, stop_sequence });
        }
        self.blocks.advance(&mut events);
        if chunk.over {
            events.extend(self.end()?);
        }
        Ok(events)
    }

    fn text(&mut self, piece: &str) {
        let Some(rescuer) = &mut self.rescuer else {
            return self.blocks.text(piece);
        };
        let mut found = Vec::new();
        rescuer.push(piece, &mut found);
        self.found(found);
    }

    fn found(&mut self, found: Vec<Found>) {
        for found in found {
            match found {
                Found::Text(text) => self.blocks.text(&text),
                Found::Thinking(text) => self.blocks.thinking(&text),
                Found::Call { name, arguments } => self.blocks.whole_call(name, arguments),
            }
        }
    }

    fn start(&mut self, events: &mut Vec<SamplingEvent>) {
        if !std::mem::replace(&mut self.started, true) {
            // Nothing is counted this early, and clients show how full the context is.
            let usage = Usage { input_tokens: self.input_tokens, ..Usage::default() };
            events.push(SamplingEvent::Started { usage });
        }
    }

    /// The stream is over in good order, or the body has ended after the model had.
    pub(super) fn end(&mut self) -> Result<Vec<SamplingEvent>, DecodeFault> {
        if !self.started {
            return Err(DecodeFault::Protocol("it ended before it had begun".to_owned()));
        }
        if let Some(mut rescuer) = self.rescuer.take() {
            let mut found = Vec::new();
            rescuer.finish(&mut found);
            self.found(found);
        }
        let mut events = Vec::new();
        self.blocks
            .finish(&mut events)
            .map_err(|NamelessCall| DecodeFault::Protocol("a call without a name".to_owned()))?;
        // Some end with `[DONE]` alone.
        let finish = self.finish.take().unwrap_or(Finish { reason: Reason::Natural, stop_sequence: None });
        let stop_reason = match finish.reason {
            Reason::Natural | Reason::Failure if self.is_at_its_limit() => StopReason::MaxTokens,
            Reason::Natural | Reason::Failure => self.natural_end(&finish),
            Reason::Length => StopReason::MaxTokens,
            Reason::Refusal => StopReason::Refusal,
        };
        let usage = self.usage.take().unwrap_or_else(|| self.estimated());
        self.ended = true;
        events.push(SamplingEvent::Ended {
            stop_reason,
            stop_sequence: finish.stop_sequence,
            stop_details: None,
            usage,
        });
        Ok(events)
    }

    /// llama.cpp's Responses API calls every reply complete: only the count tells that the limit ended it.
    fn is_at_its_limit(&self) -> bool {
        match self.form {
            Form::Chat => false,
            Form::Responses(_) => self.usage.as_ref().is_some_and(|usage| usage.output_tokens >= self.max_tokens),
        }
    }

    fn natural_end(&self, finish: &Finish) -> StopReason {
        match (self.blocks.calls(), self.refused, &finish.stop_sequence) {
            (1.., _, _) => StopReason::ToolUse,
            (0, true, _) => StopReason::Refusal,
            (0, false, Some(_)) => StopReason::StopSequence,
            (0, false, None) => StopReason::EndTurn,
        }
    }

    /// Where the upstream does not count. An estimate never uses up the turn's tokens: it must not be what ends a turn.
    fn estimated(&self) -> Usage {
        Usage {
            input_tokens: self.input_tokens,
            output_tokens: estimate::of_bytes(self.blocks.bytes).min(self.max_tokens.saturating_sub(1)),
            ..Usage::default()
        }
    }
}

fn reason(word: &str) -> Reason {
    let lower = word.to_ascii_lowercase();
    let known = REASONS.iter().find(|(known, _)| *known == lower).map(|(_, reason)| *reason);
    known.unwrap_or_else(|| {
        tracing::warn!(finish_reason = %Brief(word), "an unknown reason to finish is taken for a natural end");
        Reason::Natural
    })
}
