//! `fold(events) -> Message`: the plain reply is what the stream adds up to.

use serde_json::Value;

use crate::block::ContentBlock;
use crate::event::{Delta, StreamEvent};
use crate::message::Message;

/// A sequence of events that is no reply. Always a fault of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// An event came where it may not stand.
    #[error("`{0}` is out of place")]
    OutOfPlace(&'static str),
    /// A delta of the wrong kind for its block.
    #[error("delta does not fit block {0}")]
    WrongDelta(usize),
    /// A tool input that is no JSON object's text.
    #[error("input of block {0} is not JSON")]
    InputNotJson(usize),
    /// The stream carried an error event.
    #[error("the reply failed: {0}")]
    Failed(crate::error::ApiError),
    /// The events stopped before `message_stop`.
    #[error("the reply is incomplete")]
    Incomplete,
}

/// A reply being folded, event by event.
#[derive(Debug, Default)]
pub struct Fold {
    message: Option<Box<Message>>,
    open: Option<OpenBlock>,
    stopped: bool,
}

#[derive(Debug)]
struct OpenBlock {
    block: ContentBlock,
    input_json: String,
}

impl Fold {
    /// Takes the next event.
    pub fn push(&mut self, event: StreamEvent) -> Result<(), FoldError> {
        let name = event.name();
        if self.stopped {
            return Err(FoldError::OutOfPlace(name));
        }
        match event {
            StreamEvent::Ping => Ok(()),
            StreamEvent::Error { error, .. } => Err(FoldError::Failed(error)),
            StreamEvent::MessageStart { message } => match self.message {
                None => {
                    self.message = Some(message);
                    Ok(())
                }
                Some(_) => Err(FoldError::OutOfPlace(name)),
            },
            StreamEvent::ContentBlockStart {
                index,
                content_block,
            } => self.start(index, content_block),
            StreamEvent::ContentBlockDelta { index, delta } => self.delta(index, delta),
            StreamEvent::ContentBlockStop { index } => self.stop(index),
            StreamEvent::MessageDelta { delta, usage } => {
                let message = self.between_blocks(name)?;
                message.stop_reason = Some(delta.stop_reason);
                message.stop_sequence = delta.stop_sequence;
                message.stop_details = delta.stop_details;
                message.container = delta.container;
                message.usage.input_tokens = usage.input_tokens;
                message.usage.cache_creation_input_tokens = usage.cache_creation_input_tokens;
                message.usage.cache_read_input_tokens = usage.cache_read_input_tokens;
                message.usage.output_tokens = usage.output_tokens;
                message.usage.output_tokens_details = usage
                    .output_tokens_details
                    .or(message.usage.output_tokens_details);
                message.usage.server_tool_use =
                    usage.server_tool_use.or(message.usage.server_tool_use);
                Ok(())
            }
            StreamEvent::MessageStop => {
                self.between_blocks(name)?;
                self.stopped = true;
                Ok(())
            }
        }
    }

    /// The message, once `message_stop` has come.
    pub fn finish(self) -> Result<Message, FoldError> {
        match self.message {
            Some(message) if self.stopped => Ok(*message),
            _ => Err(FoldError::Incomplete),
        }
    }

    fn between_blocks(&mut self, name: &'static str) -> Result<&mut Message, FoldError> {
        match (&mut self.message, &self.open) {
            (Some(message), None) => Ok(message),
            _ => Err(FoldError::OutOfPlace(name)),
        }
    }

    fn start(&mut self, index: usize, block: ContentBlock) -> Result<(), FoldError> {
        let name = "content_block_start";
        if self.between_blocks(name)?.content.len() != index {
            return Err(FoldError::OutOfPlace(name));
        }
        self.open = Some(OpenBlock {
            block,
            input_json: String::new(),
        });
        Ok(())
    }

    fn open_block(
        &mut self,
        index: usize,
        name: &'static str,
    ) -> Result<&mut OpenBlock, FoldError> {
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
            (ContentBlock::Thinking(block), Delta::ThinkingDelta { thinking }) => {
                block.thinking.push_str(&thinking)
            }
            (ContentBlock::Thinking(block), Delta::SignatureDelta { signature }) => {
                block.signature = signature
            }
            (
                ContentBlock::ToolUse(_) | ContentBlock::ServerToolUse(_),
                Delta::InputJsonDelta { partial_json },
            ) => {
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
            let input: Value = serde_json::from_str(&open.input_json)
                .map_err(|_| FoldError::InputNotJson(index))?;
            match &mut open.block {
                ContentBlock::ToolUse(block) => block.input = input,
                ContentBlock::ServerToolUse(block) => block.input = input,
                _ => return Err(FoldError::WrongDelta(index)),
            }
        }
        message.content.push(open.block);
        Ok(())
    }
}

/// Folds a whole reply.
pub fn fold(events: impl IntoIterator<Item = StreamEvent>) -> Result<Message, FoldError> {
    let mut fold = Fold::default();
    for event in events {
        fold.push(event)?;
    }
    fold.finish()
}
