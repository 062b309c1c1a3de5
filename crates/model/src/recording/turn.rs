//! An exchange as people read it: what the model was told, and what it said.

use belljar_wire::block::PassiveBlock;
use belljar_wire::event::Delta;
use belljar_wire::hosted_tool::{HostedBlock, HostedCall};
use belljar_wire::message::{StopReason, Usage};
use belljar_wire::sampling::{SampledBlock, SamplingEvent};
use serde::Serialize;
use serde_json::Value;

use super::asked;
use super::line::{Dialect, Exchange};
use super::replay::answer;
use super::{End, Endpoint, Recording, RecordingError};
use crate::config::Timeouts;
use crate::error::UpstreamError;
use crate::link::{Answer, Link};
use crate::{anthropic, openai};

/// One line of a list of exchanges.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Counted from 1.
    pub number: usize,
    /// RFC 3339.
    pub at: String,
    /// `messages`, `messages/count_tokens`, `chat/completions` or `responses`.
    pub endpoint: &'static str,
    /// The model that was asked for.
    pub model: String,
    /// How many messages, or items, it was sent.
    pub messages: usize,
    /// How often the call had been sent before.
    pub attempt: u32,
    /// None when there was no answer.
    pub status: Option<u16>,
    /// How it ended.
    pub end: String,
    /// Bytes of the answer.
    pub bytes: usize,
    /// How long it took.
    pub timing: Timing,
    /// What the exchange is known by.
    pub digest: String,
}

/// How long an exchange took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Timing {
    /// From the call to the first piece of the answer.
    pub first_piece_ms: Option<u64>,
    /// From the call to the end.
    pub whole_ms: u64,
    /// In how many pieces the answer came.
    pub pieces: usize,
}

/// One exchange as a turn.
#[derive(Clone, Debug, Serialize)]
pub struct RecordedTurn {
    /// What the list says of it.
    #[serde(flatten)]
    pub summary: Summary,
    /// `anthropic-beta`, as sent.
    pub betas: Option<String>,
    /// What the model was told before all else.
    pub system: String,
    /// The conversation.
    pub conversation: Vec<Said>,
    /// Names of the tools on offer.
    pub tools: Vec<String>,
    /// What it said; with an error behind it where it did not finish.
    pub reply: Reply,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Said {
    /// Who speaks.
    pub role: String,
    /// What.
    pub parts: Vec<Part>,
}

/// What a message consists of.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Text.
    Text {
        /// As it is.
        text: String,
    },
    /// Thinking.
    Thinking {
        /// As it is.
        text: String,
    },
    /// A call of a tool.
    Call {
        /// The tool.
        name: String,
        /// What it was given; a text where that is no JSON.
        input: Value,
    },
    /// What a tool answered.
    Result {
        /// The call's id.
        call: String,
        /// What of it is text.
        text: String,
    },
    /// Something else.
    Other {
        /// Its `type`.
        kind: String,
        /// How large it is, as JSON.
        bytes: usize,
    },
}

/// What the upstream replied.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reply {
    /// Its blocks.
    pub parts: Vec<Part>,
    /// Why it ended; none when it did not.
    pub stop_reason: Option<StopReason>,
    /// What it took.
    pub usage: Option<Usage>,
    /// What went wrong.
    pub error: Option<String>,
}

impl Recording {
    /// What the list says of an exchange, counted from 1.
    ///
    /// # Errors
    /// There is none of that number, or it cannot be read.
    pub fn summary(&self, number: usize) -> Result<Summary, RecordingError> {
        Ok(self.summary_of(number, &self.numbered(number)?))
    }

    /// An exchange as a turn.
    ///
    /// # Errors
    /// As [`Recording::summary`].
    pub async fn turn(&self, number: usize) -> Result<RecordedTurn, RecordingError> {
        let exchange = self.numbered(number)?;
        let summary = self.summary_of(number, &exchange);
        let (system, conversation) = asked::read(&exchange.request);
        let tools = exchange.request["tools"].as_array().into_iter().flatten();
        let name = |tool: &Value| {
            [&tool["name"], &tool["function"]["name"], &tool["type"]]
                .iter()
                .find_map(|name| name.as_str().map(str::to_owned))
        };
        Ok(RecordedTurn {
            summary,
            betas: exchange.betas.clone(),
            system,
            conversation,
            tools: tools.filter_map(name).collect(),
            reply: self.replied(exchange).await,
        })
    }

    fn numbered(&self, number: usize) -> Result<Exchange, RecordingError> {
        // Nothing has the number 0.
        self.exchange(number.wrapping_sub(1))
    }

    fn summary_of(&self, number: usize, exchange: &Exchange) -> Summary {
        let bytes = exchange.pieces.iter().filter_map(|piece| piece.1.bytes()).map(|bytes| bytes.len()).sum();
        Summary {
            number,
            at: exchange.at.clone(),
            endpoint: exchange.endpoint.path(),
            model: exchange.request["model"].as_str().unwrap_or_default().to_owned(),
            messages: asked::messages(&exchange.request).len(),
            attempt: exchange.attempt,
            status: exchange.status,
            end: end(&exchange.end),
            bytes,
            timing: Timing {
                first_piece_ms: exchange.pieces.first().map(|piece| piece.0),
                whole_ms: exchange.whole_ms,
                pieces: exchange.pieces.len(),
            },
            digest: self
                .entries()
                .get(number.wrapping_sub(1))
                .map(|entry| entry.digest.to_string())
                .unwrap_or_default(),
        }
    }

    async fn replied(&self, exchange: Exchange) -> Reply {
        let request = exchange.request.clone();
        let (endpoint, status) = (exchange.endpoint, exchange.status);
        let answer = match answer(exchange) {
            Ok(answer) => answer,
            Err(how) => return Reply { error: Some(end(&how)), ..Reply::default() },
        };
        if endpoint == Endpoint::CountTokens || status.is_none_or(|status| !(200..300).contains(&status)) {
            return as_text(answer).await;
        }
        let link = Link::rereading(self.upstream().to_owned(), Timeouts::default());
        let (events, error) = match self.head().dialect {
            Dialect::Anthropic => anthropic::reread(&link, answer).await,
            Dialect::Openai => openai::reread(&link, answer, &request, &self.head().chat_settings()).await,
        };
        folded(events, error)
    }
}

fn end(end: &End) -> String {
    match end {
        End::Complete => "complete".to_owned(),
        End::Left => "left".to_owned(),
        End::Cut(how) => format!("cut: {how}"),
        End::TimedOut => "timed out between two pieces".to_owned(),
        End::Unreachable(how) => format!("unreachable: {how}"),
        End::Unanswered(how) => format!("unanswered: {how}"),
        End::ConnectTimedOut => "timed out while connecting".to_owned(),
        End::FirstByteTimedOut => "timed out before the answer".to_owned(),
    }
}

/// What is no reply of a model.
async fn as_text(answer: Answer) -> Reply {
    use futures_util::StreamExt as _;
    let status = answer.status;
    let mut body = Vec::new();
    let mut pieces = answer.pieces;
    while let Some(Ok(piece)) = pieces.next().await {
        body.extend_from_slice(&piece);
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    match status {
        200..300 => Reply { parts: vec![Part::Text { text }], ..Reply::default() },
        _ => Reply { error: Some(format!("HTTP {status}: {text}")), ..Reply::default() },
    }
}

fn folded(events: Vec<SamplingEvent>, error: Option<UpstreamError>) -> Reply {
    let mut reply = Reply { error: error.map(|error| error.operator), ..Reply::default() };
    let mut input = String::new();
    for event in events {
        match event {
            SamplingEvent::Started { .. } => {}
            SamplingEvent::BlockStarted(block) => {
                input.clear();
                reply.parts.push(match block {
                    SampledBlock::Text | SampledBlock::CitedText => Part::Text { text: String::new() },
                    SampledBlock::Thinking => Part::Thinking { text: String::new() },
                    SampledBlock::RedactedThinking { data } => {
                        Part::Other { kind: "redacted_thinking".to_owned(), bytes: data.len() }
                    }
                    SampledBlock::ToolUse { name, .. } => Part::Call { name, input: Value::Null },
                    SampledBlock::Hosted(block) => hosted(&block),
                });
            }
            SamplingEvent::BlockDelta(delta) => match (delta, reply.parts.last_mut()) {
                (Delta::TextDelta { text: piece }, Some(Part::Text { text }))
                | (Delta::ThinkingDelta { thinking: piece }, Some(Part::Thinking { text })) => text.push_str(&piece),
                (Delta::InputJsonDelta { partial_json }, Some(Part::Call { input: read, .. })) => {
                    input.push_str(&partial_json);
                    *read = serde_json::from_str(&input).unwrap_or_else(|_| input.as_str().into());
                }
                _ => {}
            },
            SamplingEvent::BlockEnded => {}
            SamplingEvent::Ended { stop_reason, usage, .. } => {
                (reply.stop_reason, reply.usage) = (Some(stop_reason), Some(usage));
            }
        }
    }
    reply
}

/// What the upstream's vendor ran itself.
fn hosted(block: &HostedBlock) -> Part {
    let whole = |block: &PassiveBlock| asked::part(&Value::Object(block.members.clone()));
    match block {
        HostedBlock::Call(HostedCall::Tool(call)) => Part::Call { name: call.name.clone(), input: Value::Null },
        HostedBlock::Call(HostedCall::Mcp { block, .. }) => {
            let name = block.members.get("name").and_then(Value::as_str).unwrap_or_default();
            Part::Call { name: name.to_owned(), input: Value::Null }
        }
        HostedBlock::Answer(answer) => whole(&answer.block),
        HostedBlock::Listing(block) => whole(block),
    }
}
