//! From pieces that come in any order to blocks that come one at a time.
//!
//! The block at the front is handed out as it grows. Whatever comes for others is held until the front is complete: a text when
//! something else follows, a call when its arguments are a whole object, or at the end.

use std::collections::VecDeque;

use belljar_ids::RequestId;
use belljar_wire::event::Delta;
use belljar_wire::sampling::{SampledBlock, SamplingEvent};

use super::calls::{Call, CallPiece, continued};
use crate::minting::tool_use_id;
use crate::unsigned;

/// The blocks of one reply.
#[derive(Debug)]
pub(super) struct Blocks {
    request_id: RequestId,
    /// Calls in the history: the samplings of a request differ in it wherever calls have to.
    calls_before: usize,
    /// Names of the tools on offer.
    offered: Vec<String>,
    queue: VecDeque<Block>,
    /// All calls of the reply, the complete ones too.
    calls: Vec<Call>,
    /// Bytes of text, thinking and arguments.
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Block {
    content: Content,
    begun: bool,
}

#[derive(Debug)]
enum Content {
    /// Not handed out yet.
    Text(String),
    /// The same.
    Thinking(String),
    /// A number among the calls.
    Call(usize),
}

/// A call that nobody can make: it has no name.
#[derive(Debug)]
pub(super) struct NamelessCall;

impl Blocks {
    pub(super) fn new(request_id: RequestId, calls_before: usize, offered: Vec<String>) -> Self {
        Self { request_id, calls_before, offered, queue: VecDeque::new(), calls: Vec::new(), bytes: 0 }
    }

    /// How many calls there are.
    pub(super) fn calls(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn text(&mut self, piece: &str) {
        self.count(piece);
        match self.queue.back_mut() {
            Some(Block { content: Content::Text(held), .. }) => held.push_str(piece),
            _ => self.push(Content::Text(piece.to_owned())),
        }
    }

    pub(super) fn thinking(&mut self, piece: &str) {
        self.count(piece);
        match self.queue.back_mut() {
            Some(Block { content: Content::Thinking(held), .. }) => held.push_str(piece),
            _ => self.push(Content::Thinking(piece.to_owned())),
        }
    }

    pub(super) fn call(&mut self, piece: CallPiece) {
        self.count(piece.arguments.as_deref().unwrap_or_default());
        let number = continued(&self.calls, &piece).unwrap_or_else(|| {
            self.calls.push(Call::default());
            let number = self.calls.len() - 1;
            self.push(Content::Call(number));
            number
        });
        self.calls[number].learn(piece);
    }

    /// A call that came whole, and is no part of any other.
    pub(super) fn whole_call(&mut self, name: String, arguments: String) {
        self.count(&arguments);
        let mut call = Call::default();
        call.learn(CallPiece { name: Some(name), arguments: Some(arguments), ..CallPiece::default() });
        self.calls.push(call);
        self.push(Content::Call(self.calls.len() - 1));
    }

    fn push(&mut self, content: Content) {
        self.queue.push_back(Block { content, begun: false });
    }

    fn count(&mut self, piece: &str) {
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
    }

    /// What can be handed out now.
    pub(super) fn advance(&mut self, events: &mut Vec<SamplingEvent>) {
        while self.front(events) && self.queue.len() > 1 && self.front_is_complete() {
            self.end_front(events);
        }
    }

    /// Hands out the rest: the reply is over.
    pub(super) fn finish(&mut self, events: &mut Vec<SamplingEvent>) -> Result<(), NamelessCall> {
        while !self.queue.is_empty() {
            let nameless =
                matches!(&self.queue[0].content, Content::Call(number) if self.calls[*number].name.is_none());
            if nameless {
                return Err(NamelessCall);
            }
            self.front(events);
            self.end_front(events);
        }
        Ok(())
    }

    /// Hands out what the front block holds; false if there is none, or it cannot begin.
    fn front(&mut self, events: &mut Vec<SamplingEvent>) -> bool {
        let Some(Block { content, begun }) = self.queue.front_mut() else {
            return false;
        };
        let (start, delta) = match content {
            // Nobody takes a text back that is nothing but white space, as between calls.
            Content::Text(held) | Content::Thinking(held) if !*begun && held.trim().is_empty() => {
                return self.queue.len() > 1;
            }
            Content::Text(held) => (SampledBlock::Text, Delta::TextDelta { text: std::mem::take(held) }),
            Content::Thinking(held) => {
                (SampledBlock::Thinking, Delta::ThinkingDelta { thinking: std::mem::take(held) })
            }
            Content::Call(number) => {
                let call = &mut self.calls[*number];
                let Some(name) = &call.name else {
                    return false;
                };
                let id = tool_use_id(&self.request_id, self.calls_before, *number);
                let start = SampledBlock::ToolUse { id, name: known_name(name, &self.offered).to_owned() };
                (start, Delta::InputJsonDelta { partial_json: call.arguments.take() })
            }
        };
        if !std::mem::replace(begun, true) {
            events.push(SamplingEvent::BlockStarted(start));
        }
        push_delta(events, delta);
        true
    }

    fn front_is_complete(&self) -> bool {
        match self.queue.front().map(|block| &block.content) {
            Some(Content::Text(_) | Content::Thinking(_)) => true,
            Some(Content::Call(number)) => self.calls[*number].arguments.is_whole(),
            None => false,
        }
    }

    fn end_front(&mut self, events: &mut Vec<SamplingEvent>) {
        let Some(Block { content, begun: true }) = self.queue.pop_front() else {
            return;
        };
        match content {
            Content::Text(_) => {}
            Content::Thinking(_) => {
                let signature = unsigned::SIGNATURE.to_owned();
                events.push(SamplingEvent::BlockDelta(Delta::SignatureDelta { signature }));
            }
            Content::Call(number) => {
                let partial_json = self.calls[number].arguments.finish();
                push_delta(events, Delta::InputJsonDelta { partial_json });
            }
        }
        events.push(SamplingEvent::BlockEnded);
    }
}

fn push_delta(events: &mut Vec<SamplingEvent>, delta: Delta) {
    let empty = match &delta {
        Delta::TextDelta { text } => text.is_empty(),
        Delta::ThinkingDelta { thinking } => thinking.is_empty(),
        Delta::InputJsonDelta { partial_json } => partial_json.is_empty(),
        Delta::SignatureDelta { .. } | Delta::CitationsDelta { .. } => false,
    };
    if !empty {
        events.push(SamplingEvent::BlockDelta(delta));
    }
}

/// The tool that is meant: some servers leave marks of the model's own format at a name (`functions.look_up:0`,
/// `look_up<|channel|>json`). A name that is on offer is always itself.
pub(super) fn known_name<'a>(name: &'a str, offered: &[String]) -> &'a str {
    let on_offer = |name: &str| offered.iter().any(|offered| offered == name);
    if on_offer(name) {
        return name;
    }
    let bare = name.trim();
    let bare = bare.split_once("<|").map_or(bare, |(bare, _)| bare);
    let bare = bare.strip_prefix("functions.").unwrap_or(bare);
    let numbered = bare.rsplit_once(':').filter(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()));
    let bare = numbered.map_or(bare, |(bare, _)| bare);
    if on_offer(bare) { bare } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_off_names_that_are_on_offer() {
        let offered = ["look_up".to_owned(), "functions.odd".to_owned()];
        let cases = [
            ("look_up", "look_up"),
            ("functions.look_up:12", "look_up"),
            ("functions.look_up", "look_up"),
            ("look_up<|channel|>json", "look_up"),
            (" look_up\n", "look_up"),
            ("functions.odd", "functions.odd"),
            ("functions.other:0", "functions.other:0"),
        ];
        for (name, expected) in cases {
            assert_eq!(known_name(name, &offered), expected, "{name}");
        }
    }
}
