//! `fold(events) -> Message`: the plain reply is what the stream adds up to.

use serde_json::Value;

use crate::block::ContentBlock;
use crate::event::{Delta, DeltaUsage, MessageDelta, SettledUsage, StreamEvent};
use crate::message::{Message, StopReason};
use crate::partial::Input;

/// A sequence of events that is no reply. Always a fault of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// An event came where it may not stand.
    #[error("`{0}` is out of place")]
    OutOfPlace(&'static str),
    /// A delta of the wrong kind for its block.
    #[error("delta does not fit block {0}")]
    WrongDelta(usize),
    /// A tool input that is no JSON object's text; cut off is allowed in the last block of a reply that was cut off.
    #[error("input of block {0} is not a JSON object")]
    InputNotJson(usize),
    /// The stream carried an error event.
    #[error("the reply failed: {0}")]
    Failed(crate::error::ApiError),
    /// The events stopped before `message_stop`.
    #[error("the reply is incomplete")]
    Incomplete,
}

/// A reply being folded, event by event. After an error it is of no more use.
#[derive(Debug, Default)]
pub struct Fold {
    message: Option<Box<Message>>,
    open: Option<OpenBlock>,
    /// The block whose input stops in the middle.
    cut_off: Option<usize>,
    phase: Phase,
}

#[derive(Debug, Default, PartialEq)]
enum Phase {
    /// Up to and in the content.
    #[default]
    Content,
    /// `message_delta` has come.
    Ended,
    /// `message_stop` has come.
    Stopped,
}

#[derive(Debug)]
struct OpenBlock {
    block: ContentBlock,
    input_json: String,
}

impl Fold {
    /// Takes the next event.
    ///
    /// # Errors
    /// What is wrong with the sequence: a reply is `message_start` with nothing said yet, blocks one after another, one
    /// `message_delta`, and `message_stop`, with pings anywhere.
    pub fn push(&mut self, event: StreamEvent) -> Result<(), FoldError> {
        let name = event.name();
        if self.phase == Phase::Stopped {
            return Err(FoldError::OutOfPlace(name));
        }
        match event {
            StreamEvent::Ping | StreamEvent::BelljarOutput { .. } => Ok(()),
            StreamEvent::Error { error, .. } => Err(FoldError::Failed(error)),
            StreamEvent::MessageStart { message } => {
                let is_head = message.content.is_empty() && message.stop_reason.is_none();
                if self.message.is_some() || !is_head {
                    return Err(FoldError::OutOfPlace(name));
                }
                self.message = Some(message);
                Ok(())
            }
            StreamEvent::ContentBlockStart { index, content_block } => self.start(index, *content_block),
            StreamEvent::ContentBlockDelta { index, delta } => self.delta(index, delta),
            StreamEvent::ContentBlockStop { index } => self.stop(index),
            StreamEvent::MessageDelta { delta, usage } => self.end(*delta, *usage),
            StreamEvent::MessageStop if self.phase == Phase::Ended => {
                self.phase = Phase::Stopped;
                Ok(())
            }
            StreamEvent::MessageStop => Err(FoldError::OutOfPlace(name)),
        }
    }

    /// The message, once `message_stop` has come.
    pub fn finish(self) -> Result<Message, FoldError> {
        match self.message {
            Some(message) if self.phase == Phase::Stopped => Ok(*message),
            _ => Err(FoldError::Incomplete),
        }
    }

    fn between_blocks(&mut self, name: &'static str) -> Result<&mut Message, FoldError> {
        match (&mut self.message, &self.open, &self.phase) {
            (Some(message), None, Phase::Content) => Ok(message),
            _ => Err(FoldError::OutOfPlace(name)),
        }
    }

    fn start(&mut self, index: usize, block: ContentBlock) -> Result<(), FoldError> {
        let name = "content_block_start";
        if self.between_blocks(name)?.content.len() != index {
            return Err(FoldError::OutOfPlace(name));
        }
        if let Some(cut_off) = self.cut_off {
            return Err(FoldError::InputNotJson(cut_off));
        }
        self.open = Some(OpenBlock { block, input_json: String::new() });
        Ok(())
    }

    fn open_block(&mut self, index: usize, name: &'static str) -> Result<&mut OpenBlock, FoldError> {
        let expected = self.message.as_ref().map(|message| message.content.len());
        match &mut self.open {
            Some(open) if expected == Some(index) => Ok(open),
            _ => Err(FoldError::OutOfPlace(name)),
        }
    }

    fn delta(&mut self, index: usize, delta: Delta) -> Result<(), FoldError> {
        let open = self.open_block(index, "content_block_delta")?;
        match (&mut open.block, delta) {
            (ContentBlock::Text(block), Delta::TextDelta { text }) => block.text.push_str(&text),
            (ContentBlock::Text(block), Delta::CitationsDelta { citation }) => {
                block.citations.get_or_insert_default().push(citation);
            }
            (ContentBlock::Thinking(block), Delta::ThinkingDelta { thinking }) => block.thinking.push_str(&thinking),
            (ContentBlock::Thinking(block), Delta::SignatureDelta { signature }) => block.signature = signature,
            (ContentBlock::ToolUse(_) | ContentBlock::ServerToolUse(_), Delta::InputJsonDelta { partial_json }) => {
                open.input_json.push_str(&partial_json);
            }
            (ContentBlock::Passive(block), Delta::InputJsonDelta { partial_json }) if block.takes_input() => {
                open.input_json.push_str(&partial_json);
            }
            _ => return Err(FoldError::WrongDelta(index)),
        }
        Ok(())
    }

    fn stop(&mut self, index: usize) -> Result<(), FoldError> {
        self.open_block(index, "content_block_stop")?;
        let (Some(mut open), Some(message)) = (self.open.take(), self.message.as_mut()) else {
            return Err(FoldError::OutOfPlace("content_block_stop"));
        };
        if !open.input_json.is_empty() {
            let input = Input::read(&open.input_json).ok_or(FoldError::InputNotJson(index))?;
            let input = match input {
                Input::Whole(input) => input,
                Input::CutOff(input) => {
                    self.cut_off = Some(index);
                    input
                }
            };
            match &mut open.block {
                ContentBlock::ToolUse(block) => block.input = Value::Object(input),
                ContentBlock::ServerToolUse(block) => block.input = Value::Object(input),
                ContentBlock::Passive(block) => _ = block.members.insert("input".to_owned(), Value::Object(input)),
                _ => return Err(FoldError::WrongDelta(index)),
            }
        }
        message.content.push(open.block);
        Ok(())
    }

    fn end(&mut self, delta: MessageDelta, usage: DeltaUsage) -> Result<(), FoldError> {
        if let (Some(index), false) = (self.cut_off, cuts_off(delta.stop_reason)) {
            return Err(FoldError::InputNotJson(index));
        }
        let message = self.between_blocks("message_delta")?;
        message.stop_reason = Some(delta.stop_reason);
        message.stop_sequence = delta.stop_sequence;
        message.stop_details = delta.stop_details;
        message.container = delta.container.or(message.container.take());
        let total = &mut message.usage;
        total.input_tokens = usage.input_tokens;
        total.cache_creation_input_tokens = usage.cache_creation_input_tokens;
        total.cache_read_input_tokens = usage.cache_read_input_tokens;
        total.output_tokens = usage.output_tokens;
        total.output_tokens_details = usage.output_tokens_details.or(total.output_tokens_details);
        total.server_tool_use = usage.server_tool_use.or(total.server_tool_use);
        let SettledUsage { cache_creation, service_tier, inference_geo, speed } = usage.settled;
        total.cache_creation = cache_creation.or(total.cache_creation);
        total.service_tier = service_tier.or(total.service_tier.take());
        total.inference_geo = inference_geo.or(total.inference_geo.take());
        total.speed = speed.or(total.speed.take());
        self.phase = Phase::Ended;
        Ok(())
    }
}

/// Whether a reply may end like that in the middle of a block.
fn cuts_off(stop_reason: StopReason) -> bool {
    match stop_reason {
        StopReason::MaxTokens
        | StopReason::StopSequence
        | StopReason::Refusal
        | StopReason::ModelContextWindowExceeded => true,
        StopReason::EndTurn | StopReason::ToolUse | StopReason::PauseTurn => false,
    }
}

/// Folds a whole reply.
///
/// # Errors
/// See [`Fold::push`]; also when the events stop before `message_stop`.
pub fn fold(events: impl IntoIterator<Item = StreamEvent>) -> Result<Message, FoldError> {
    let mut fold = Fold::default();
    for event in events {
        fold.push(event)?;
    }
    fold.finish()
}
