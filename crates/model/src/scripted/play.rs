//! One step as a stream of events, faults included.

use std::io;

use belljar_ids::{RequestId, ToolUseId};
use belljar_wire::event::Delta;
use belljar_wire::message::Usage;
use belljar_wire::sampling::{SampledBlock, SamplingEvent, SamplingRequest};
use serde_json::{Value, json};

use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::minting::tool_use_id;
use crate::scripted::script::{Failure, Fault, Step, StepBlock};
use crate::upstream::SamplingStream;

/// Bytes that an estimate takes for one token.
pub(super) const TOKEN_BYTES: u64 = 4;

/// What is played, and for whom.
pub(super) struct Part<'a> {
    pub(super) upstream: &'a str,
    pub(super) request: &'a SamplingRequest,
    pub(super) request_id: &'a RequestId,
    /// Of the turn, counted from 0.
    pub(super) step_index: usize,
}

/// Plays a step. Dropping the stream ends the play.
pub(super) fn play(step: &Step, part: &Part<'_>) -> SamplingStream {
    let events = events(step, part);
    let fault = step.fault.as_ref().map(|fault| failing(fault, events.len(), part));
    let delay = step.delay;
    Box::pin(async_stream::stream! {
        let mut fault = fault;
        for (count, event) in events.into_iter().enumerate() {
            if let Some((_, error)) = fault.take_if(|(at, _)| *at == count) {
                yield Err(error);
                return;
            }
            if let (Some(delay), SamplingEvent::BlockDelta(_)) = (delay, &event) {
                tokio::time::sleep(delay).await;
            }
            yield Ok(event);
        }
    })
}

/// The event in whose place an error comes, and the error. A stated fault always comes: at the latest in place of the last event.
fn failing(fault: &Fault, events: usize, part: &Part<'_>) -> (usize, UpstreamError) {
    let last = events.saturating_sub(1);
    match fault {
        Fault::BeforeFirstByte(failure) => (0, failed(failure, part)),
        Fault::MidStream { after_events, failure } => (last.min(*after_events), failed(failure, part)),
        Fault::Cut { after_events } => {
            let operator =
                format!("upstream `{}`: the script cut the connection at step {}", part.upstream, part.step_index);
            let error = UpstreamError::new(UpstreamErrorKind::Cut, operator);
            (last.min(*after_events), error)
        }
    }
}

fn failed(failure: &Failure, part: &Part<'_>) -> UpstreamError {
    let operator = format!(
        "upstream `{}`: the script failed step {} with status {}",
        part.upstream, part.step_index, failure.status
    );
    let error = UpstreamError::new(UpstreamErrorKind::of_status(failure.status, None), operator);
    match &failure.message {
        Some(message) => error.telling(message),
        None => error,
    }
}

fn events(step: &Step, part: &Part<'_>) -> Vec<SamplingEvent> {
    let usage = usage(step, part.request);
    let mut events = vec![SamplingEvent::Started {
        usage: Usage { output_tokens: usage.output_tokens.min(1), output_tokens_details: None, ..usage.clone() },
    }];
    for (index, block) in step.content.iter().enumerate() {
        let (start, deltas) =
            block_events(block, step.chunk_bytes.get(), || tool_use_id(part.request_id, part.step_index, index));
        events.push(SamplingEvent::BlockStarted(start));
        events.extend(deltas.into_iter().map(SamplingEvent::BlockDelta));
        events.push(SamplingEvent::BlockEnded);
    }
    events.push(SamplingEvent::Ended {
        stop_reason: step.stop_reason(),
        stop_sequence: step.stop_sequence.clone(),
        stop_details: step.stop_details.clone(),
        usage,
    });
    events
}

fn block_events(
    block: &StepBlock,
    chunk_bytes: usize,
    made_id: impl FnOnce() -> ToolUseId,
) -> (SampledBlock, Vec<Delta>) {
    match block {
        StepBlock::Text(text) => {
            let deltas = chunks(text, chunk_bytes).map(|text| Delta::TextDelta { text });
            (SampledBlock::Text, deltas.collect())
        }
        StepBlock::Thinking { thinking, signature } => {
            let deltas = chunks(thinking, chunk_bytes).map(|thinking| Delta::ThinkingDelta { thinking });
            let signature = signature.clone();
            let signature = signature.map(|signature| Delta::SignatureDelta { signature });
            (SampledBlock::Thinking, deltas.chain(signature).collect())
        }
        StepBlock::RedactedThinking { data } => {
            let data = data.clone();
            (SampledBlock::RedactedThinking { data }, Vec::new())
        }
        StepBlock::ToolUse { name, input, id } => {
            let id = id.clone().unwrap_or_else(made_id);
            let name = name.clone();
            let deltas = chunks(&input.to_string(), chunk_bytes)
                .map(|partial_json| Delta::InputJsonDelta { partial_json })
                .collect();
            (SampledBlock::ToolUse { id, name }, deltas)
        }
    }
}

/// Pieces of `text` of at most `bytes_max` bytes; a character that is longer is a piece of its own.
fn chunks(text: &str, bytes_max: usize) -> impl Iterator<Item = String> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = rest.floor_char_boundary(bytes_max).max(first.len_utf8());
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        Some(piece.to_owned())
    })
}

/// What the step states, the rest estimated from sizes. An estimate never uses up the turn's tokens while a call is to be
/// answered: it must not be the reason for which a turn ends.
fn usage(step: &Step, request: &SamplingRequest) -> Usage {
    let room = if step.calls() { (request.max_tokens / 8).max(1) } else { request.max_tokens };
    let mut usage = json!({
        "input_tokens": tokens(json_bytes(&request.messages).saturating_add(json_bytes(&request.system))),
        "output_tokens": tokens(content_bytes(step)).min(room),
    });
    for (member, value) in &step.usage {
        usage[member] = value.clone();
    }
    serde_json::from_value(usage).expect("the members were checked one by one when the script was read")
}

const fn tokens(bytes: u64) -> u64 {
    bytes.div_ceil(TOKEN_BYTES)
}

fn content_bytes(step: &Step) -> u64 {
    let sizes = step.content.iter().map(|block| match block {
        StepBlock::Text(text) => text.len() as u64,
        StepBlock::Thinking { thinking, .. } => thinking.len() as u64,
        StepBlock::RedactedThinking { data } => data.len() as u64,
        StepBlock::ToolUse { name, input, .. } => (name.len() as u64).saturating_add(json_bytes::<Value>(input)),
    });
    sizes.sum()
}

/// The length of a value's JSON text, without making it.
fn json_bytes<T: serde::Serialize>(value: &T) -> u64 {
    struct Counter(u64);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len() as u64);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value).expect("blocks are JSON, and counting cannot fail");
    counter.0
}
