//! Arbitrary replies, and the events that tell them.

use belljar_ids::{ContainerId, MessageId, RequestId, SeededIds, ServerToolUseId, ToolUseId};
use belljar_wire::block::{
    ContentBlock, PassiveBlock, RedactedThinkingBlock, ResultBody, ServerResultBlock, ServerToolUseBlock, TextBlock,
    ThinkingBlock, ToolUseBlock,
};
use belljar_wire::container::ContainerInfo;
use belljar_wire::error::ApiError;
use belljar_wire::event::{Delta, DeltaUsage, MessageDelta, SettledUsage, StreamEvent};
use belljar_wire::message::{
    AssistantRole, CacheCreation, Message, MessageTag, OutputTokensDetails, ServerToolUsage, StopReason, Usage,
};
use belljar_wire::result::{BashOutput, BashResult, ErrorCode, ExecutionError, ResultContent};
use belljar_wire::tool::{Caller, CodeCaller, DirectCaller};
use proptest::collection::{hash_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Text as hostile code prints it: events, fields and line ends of its own among anything else.
pub fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        prop::sample::select(vec![
            "\n\nevent: x\ndata: {}\n\n",
            "\r\n\r\nevent: message_stop\r\ndata:",
            "\r\rdata: x\r\r",
            ":",
            "\0",
            "\u{2028}",
            "\u{85}",
            "\u{feff}event: ping",
            "id: 1\nretry: 0\n",
            "data: [DONE]\n\n",
            "\\",
            "\"",
            "</script>",
            "\u{1b}[2J",
        ])
        .prop_map(str::to_owned),
    ];
    vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![any::<i64>().prop_map(Value::from), text().prop_map(Value::from), Just(Value::Null)];
    let value = leaf.prop_recursive(3, 12, 3, |inner| vec(inner, 0..3).prop_map(Value::from));
    hash_map(text(), value, 0..4).prop_map(|members| Value::Object(members.into_iter().collect()))
}

fn server_id() -> impl Strategy<Value = ServerToolUseId> {
    any::<u64>().prop_map(|seed| ServerToolUseId::mint(&mut SeededIds::new(seed)))
}

fn caller() -> impl Strategy<Value = Option<Caller>> {
    let code = server_id()
        .prop_map(|tool_id| Caller::Code(CodeCaller { version: "code_execution_20260120".to_owned(), tool_id }));
    option::of(prop_oneof![Just(Caller::Direct(DirectCaller {})), code])
}

fn result() -> impl Strategy<Value = ResultContent> {
    let files = vec(any::<u64>(), 0..2).prop_map(|seeds| {
        let file = |seed| BashOutput { file_id: belljar_ids::FileId::mint(&mut SeededIds::new(seed)) };
        seeds.into_iter().map(file).collect()
    });
    let bash = (text(), text(), any::<i32>(), files).prop_map(|(stdout, stderr, return_code, content)| {
        ResultContent::BashCodeExecutionResult(BashResult { stdout, stderr, return_code, content })
    });
    let error_code = ErrorCode::OutputFileTooLarge;
    let error = Just(ResultContent::BashCodeExecutionToolResultError(ExecutionError { error_code }));
    prop_oneof![4 => bash, 1 => error]
}

/// One complete block of any kind that a reply may hold.
pub fn block() -> impl Strategy<Value = ContentBlock> {
    let citations = option::of(vec(object(), 1..3));
    let rest = Map::new;
    prop_oneof![
        (text(), citations).prop_map(move |(text, citations)| ContentBlock::Text(TextBlock {
            text,
            citations,
            rest: rest()
        })),
        (text(), text()).prop_map(move |(thinking, signature)| {
            ContentBlock::Thinking(ThinkingBlock { thinking, signature, rest: rest() })
        }),
        text().prop_map(move |data| ContentBlock::RedactedThinking(RedactedThinkingBlock { data, rest: rest() })),
        (any::<u64>(), text(), object(), caller()).prop_map(move |(seed, name, input, caller)| {
            let id = ToolUseId::mint(&mut SeededIds::new(seed));
            ContentBlock::ToolUse(ToolUseBlock { id, name, input, caller, rest: rest() })
        }),
        (server_id(), text(), object(), caller()).prop_map(move |(id, name, input, caller)| {
            ContentBlock::ServerToolUse(ServerToolUseBlock { id, name, input, caller, rest: rest() })
        }),
        (server_id(), result()).prop_map(move |(tool_use_id, content)| {
            let content = ResultBody::Made(content);
            ContentBlock::BashCodeExecutionToolResult(ServerResultBlock { tool_use_id, content, rest: rest() })
        }),
        object().prop_map(|inner| {
            let members = [("type".to_owned(), json!("web_search_tool_result")), ("content".to_owned(), inner)];
            ContentBlock::Passive(PassiveBlock { members: members.into_iter().collect() })
        }),
    ]
}

fn stop_reason() -> impl Strategy<Value = StopReason> {
    prop::sample::select(vec![
        StopReason::EndTurn,
        StopReason::MaxTokens,
        StopReason::StopSequence,
        StopReason::ToolUse,
        StopReason::PauseTurn,
        StopReason::Refusal,
        StopReason::ModelContextWindowExceeded,
    ])
}

fn usage() -> impl Strategy<Value = Usage> {
    let tokens = any::<[u64; 5]>();
    (tokens, any::<[bool; 6]>()).prop_map(|(tokens, given)| Usage {
        input_tokens: tokens[0],
        cache_creation_input_tokens: tokens[1],
        cache_read_input_tokens: tokens[2],
        output_tokens: tokens[3],
        cache_creation: given[0]
            .then_some(CacheCreation { ephemeral_5m_input_tokens: tokens[4], ephemeral_1h_input_tokens: 0 }),
        output_tokens_details: given[1].then_some(OutputTokensDetails { thinking_tokens: tokens[4] }),
        service_tier: given[2].then(|| "standard".to_owned()),
        inference_geo: given[3].then(|| "global".to_owned()),
        speed: given[5].then(|| "fast".to_owned()),
        server_tool_use: given[4].then(ServerToolUsage::default),
    })
}

/// A complete reply.
pub fn message() -> impl Strategy<Value = Message> {
    let details = option::of(object());
    let ending = (stop_reason(), option::of(text()), details, any::<bool>());
    (text(), any::<u64>(), vec(block(), 0..6), ending, usage()).prop_map(|(model, seed, content, ending, usage)| {
        let (stop_reason, stop_sequence, stop_details, has_container) = ending;
        let ids = &mut SeededIds::new(seed);
        Message {
            model,
            id: MessageId::mint(ids),
            tag: MessageTag::Message,
            role: AssistantRole::Assistant,
            content,
            container: has_container.then(|| ContainerInfo {
                id: ContainerId::mint(ids),
                expires_at: "2026-11-20T18:54:08.960841Z".to_owned(),
            }),
            stop_reason: Some(stop_reason),
            stop_sequence,
            stop_details,
            usage,
        }
    })
}

/// Cuts `text` at arbitrary characters; some pieces are empty, as on the wire.
fn pieces(text: &str, cuts: &mut impl Iterator<Item = u8>) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for character in text.chars() {
        for _ in 0..cuts.next().unwrap_or(0).saturating_sub(252) {
            pieces.push(String::new());
        }
        pieces.last_mut().expect("there is a piece").push(character);
    }
    pieces
}

/// How `block` begins, and the deltas that complete it.
fn told(block: &ContentBlock, cuts: &mut impl Iterator<Item = u8>) -> (ContentBlock, Vec<Delta>) {
    let mut start = block.clone();
    let mut deltas = Vec::new();
    match &mut start {
        ContentBlock::Text(block) => {
            for text in pieces(&std::mem::take(&mut block.text), cuts) {
                deltas.push(Delta::TextDelta { text });
            }
            for citation in block.citations.take().into_iter().flatten() {
                deltas.push(Delta::CitationsDelta { citation });
            }
        }
        ContentBlock::Thinking(block) => {
            for thinking in pieces(&std::mem::take(&mut block.thinking), cuts) {
                deltas.push(Delta::ThinkingDelta { thinking });
            }
            let signature = std::mem::take(&mut block.signature);
            deltas.push(Delta::SignatureDelta { signature });
        }
        // Programmatic calls come whole (wire.md §11.4).
        ContentBlock::ToolUse(ToolUseBlock { input, caller, .. })
        | ContentBlock::ServerToolUse(ServerToolUseBlock { input, caller, .. })
            if !matches!(caller, Some(Caller::Code(_))) =>
        {
            let text = std::mem::replace(input, json!({})).to_string();
            let parts = pieces(&text, cuts).into_iter();
            deltas.extend(parts.map(|partial_json| Delta::InputJsonDelta { partial_json }));
        }
        _ => {}
    }
    (start, deltas)
}

/// The events that tell `message`, pings among them.
pub fn events(message: &Message, cuts: &mut impl Iterator<Item = u8>) -> Vec<StreamEvent> {
    let mut head = message.clone();
    (head.content, head.container) = (Vec::new(), None);
    (head.stop_reason, head.stop_sequence, head.stop_details) = (None, None, None);
    (head.usage.output_tokens, head.usage.server_tool_use) = (1, None);
    let mut events = vec![StreamEvent::MessageStart { message: Box::new(head) }];
    for (index, block) in message.content.iter().enumerate() {
        let (content_block, deltas) = told(block, cuts);
        events.push(StreamEvent::ContentBlockStart { index, content_block: Box::new(content_block) });
        events.extend(deltas.into_iter().map(|delta| StreamEvent::ContentBlockDelta { index, delta }));
        events.push(StreamEvent::ContentBlockStop { index });
    }
    let usage = &message.usage;
    events.push(StreamEvent::MessageDelta {
        delta: Box::new(MessageDelta {
            stop_reason: message.stop_reason.expect("a whole message ended"),
            stop_sequence: message.stop_sequence.clone(),
            stop_details: message.stop_details.clone(),
            container: message.container.clone(),
        }),
        usage: Box::new(DeltaUsage {
            input_tokens: usage.input_tokens,
            cache_creation_input_tokens: usage.cache_creation_input_tokens,
            cache_read_input_tokens: usage.cache_read_input_tokens,
            output_tokens: usage.output_tokens,
            output_tokens_details: usage.output_tokens_details,
            server_tool_use: usage.server_tool_use,
            settled: SettledUsage::default(),
        }),
    });
    events.push(StreamEvent::MessageStop);
    let mut with_pings = Vec::new();
    for event in events {
        with_pings.extend((cuts.next() > Some(230)).then_some(StreamEvent::Ping));
        with_pings.push(event);
    }
    with_pings
}

/// A reply with its events.
pub fn reply() -> impl Strategy<Value = (Message, Vec<StreamEvent>)> {
    (message(), vec(any::<u8>(), 0..400)).prop_map(|(message, cuts)| {
        let events = events(&message, &mut cuts.into_iter());
        (message, events)
    })
}

/// Any event, in no order.
#[allow(dead_code, reason = "each test binary uses its own part of this module")]
pub fn event() -> impl Strategy<Value = StreamEvent> {
    let any_of_reply = (reply(), any::<prop::sample::Index>()).prop_map(|((_, events), at)| at.get(&events).clone());
    let error = (text(), any::<u64>()).prop_map(|(message, seed)| StreamEvent::Error {
        error: ApiError::invalid(message),
        request_id: RequestId::mint(&mut SeededIds::new(seed)),
    });
    prop_oneof![12 => any_of_reply, 1 => error]
}
