//! A step as a stream: pieces, pauses, faults.

use async_stream::stream;
use belljar_ids::{SeededIds, ToolUseId};
use belljar_wire::event::Delta;
use belljar_wire::message::Usage;
use belljar_wire::sampling::{SampledBlock, SamplingEvent};
use tokio::time::sleep;

use super::script::{Fault, Step, StepBlock};
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::upstream::SamplingStream;

/// Bytes that count as one token. Many, so that what the fixed rule says fits into an ordinary `max_tokens`: the loop counts what
/// this model reports.
const TOKEN_BYTES: usize = 32;

/// Plays a step. `seed` makes the ids of its calls; `input_bytes` is the size of what was asked.
pub(super) fn play(upstream: String, step: Step, seed: u64, input_bytes: usize) -> SamplingStream {
    Box::pin(stream! {
        if !step.delay.is_zero() {
            sleep(step.delay).await;
        }
        if let Some(Fault::ErrorBeforeFirstByte { status, message }) = &step.fault {
            let kind = UpstreamErrorKind::of_status(*status, None);
            yield Err(scripted_error(kind, &upstream, message));
            return;
        }
        for (count, event) in events_of(&step, seed, input_bytes).into_iter().enumerate() {
            if let Some(error) = fault_after(&step, count, &upstream) {
                yield Err(error);
                return;
            }
            if matches!(event, SamplingEvent::BlockDelta(_)) && !step.chunk_delay.is_zero() {
                sleep(step.chunk_delay).await;
            }
            yield Ok(event);
        }
    })
}

fn fault_after(step: &Step, count: usize, upstream: &str) -> Option<UpstreamError> {
    match &step.fault {
        Some(Fault::ErrorMidStream { after_events, message }) if *after_events == count => {
            Some(scripted_error(UpstreamErrorKind::Overloaded, upstream, message))
        }
        Some(Fault::CutConnection { after_events }) if *after_events == count => Some(UpstreamError::new(
            UpstreamErrorKind::Cut,
            format!("upstream `{upstream}`: the script cuts the connection here"),
        )),
        Some(Fault::ErrorBeforeFirstByte { .. } | Fault::ErrorMidStream { .. } | Fault::CutConnection { .. })
        | None => None,
    }
}

fn scripted_error(kind: UpstreamErrorKind, upstream: &str, message: &str) -> UpstreamError {
    let operator = format!("upstream `{upstream}`: the script says: {message}");
    let error = UpstreamError::new(kind, operator);
    match kind {
        // As with a real upstream: its own words only where the request is at fault.
        UpstreamErrorKind::Rejected { .. } => error.telling(message),
        _ => error,
    }
}

/// Every event of a step, in order.
pub(super) fn events_of(step: &Step, seed: u64, input_bytes: usize) -> Vec<SamplingEvent> {
    let mut ids = SeededIds::new(seed);
    let usage = usage_of(step, input_bytes);
    let mut events = vec![SamplingEvent::Started { usage: Usage { output_tokens: 1, ..usage.clone() } }];
    for block in &step.content {
        let (start, deltas) = block_events(block, step.chunk_bytes, &mut ids);
        events.push(SamplingEvent::BlockStarted(start));
        events.extend(deltas.into_iter().map(SamplingEvent::BlockDelta));
        events.push(SamplingEvent::BlockEnded);
    }
    events.push(SamplingEvent::Ended { stop_reason: step.stop_reason, stop_sequence: None, stop_details: None, usage });
    events
}

fn block_events(block: &StepBlock, chunk_bytes: usize, ids: &mut SeededIds) -> (SampledBlock, Vec<Delta>) {
    match block {
        StepBlock::Text(text) => {
            let piece = |text: &str| Delta::TextDelta { text: text.to_owned() };
            (SampledBlock::Text, chunks(text, chunk_bytes).map(piece).collect())
        }
        StepBlock::Thinking { thinking, signature } => {
            let piece = |thinking: &str| Delta::ThinkingDelta { thinking: thinking.to_owned() };
            let mut deltas: Vec<Delta> = chunks(thinking, chunk_bytes).map(piece).collect();
            deltas.push(Delta::SignatureDelta { signature: signature.clone() });
            (SampledBlock::Thinking, deltas)
        }
        StepBlock::RedactedThinking { data } => (SampledBlock::RedactedThinking { data: data.clone() }, Vec::new()),
        StepBlock::ToolUse { name, input } => {
            let piece = |json: &str| Delta::InputJsonDelta { partial_json: json.to_owned() };
            let start = SampledBlock::ToolUse { id: ToolUseId::mint(ids), name: name.clone() };
            let json = input.to_string();
            (start, chunks(&json, chunk_bytes).map(piece).collect())
        }
    }
}

/// Pieces of about `bytes` bytes; characters stay whole.
fn chunks(text: &str, bytes: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = (bytes.max(1)..rest.len()).find(|end| rest.is_char_boundary(*end)).unwrap_or(rest.len());
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        Some(piece)
    })
}

/// What the step says, or a count that depends on the bytes alone.
fn usage_of(step: &Step, input_bytes: usize) -> Usage {
    if let Some(usage) = &step.usage {
        return usage.clone();
    }
    let output_bytes: usize = step.content.iter().map(block_bytes).sum();
    Usage { input_tokens: tokens(input_bytes), output_tokens: tokens(output_bytes), ..Usage::default() }
}

fn block_bytes(block: &StepBlock) -> usize {
    match block {
        StepBlock::Text(text) => text.len(),
        StepBlock::Thinking { thinking, .. } => thinking.len(),
        StepBlock::RedactedThinking { data } => data.len(),
        StepBlock::ToolUse { name, input } => name.len() + input.to_string().len(),
    }
}

fn tokens(bytes: usize) -> u64 {
    u64::try_from(bytes.div_ceil(TOKEN_BYTES)).unwrap_or(u64::MAX).max(1)
}
