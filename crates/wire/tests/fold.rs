//! The plain reply is what the stream adds up to, and what is no stream adds up to nothing.

mod replies;

use belljar_ids::{MessageId, RequestId, SeededIds, ToolUseId};
use belljar_wire::block::{ContentBlock, ThinkingBlock, ToolUseBlock};
use belljar_wire::error::ApiError;
use belljar_wire::event::{Delta, MessageDelta, SettledUsage, StreamEvent};
use belljar_wire::fold::{FoldError, fold};
use belljar_wire::message::{AssistantRole, CacheCreation, Message, MessageTag, StopReason, Usage};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Whether a reply may look like that, said in another way than the fold says it: by the shape of the whole sequence.
/// `None` when only the text of a tool's input decides.
fn is_reply(events: &[StreamEvent]) -> Option<bool> {
    if !matches!(events.last(), Some(StreamEvent::MessageStop)) {
        return Some(false);
    }
    let events: Vec<&StreamEvent> = events.iter().filter(|event| !matches!(event, StreamEvent::Ping)).collect();
    let [
        StreamEvent::MessageStart { message },
        blocks @ ..,
        StreamEvent::MessageDelta { .. },
        StreamEvent::MessageStop,
    ] = events.as_slice()
    else {
        return Some(false);
    };
    let mut inputs_decide = false;
    let chunks = blocks.chunk_by(|_, next| !matches!(next, StreamEvent::ContentBlockStart { .. }));
    for (expected, chunk) in chunks.enumerate() {
        let [
            StreamEvent::ContentBlockStart { index: first, content_block },
            deltas @ ..,
            StreamEvent::ContentBlockStop { index: last },
        ] = chunk
        else {
            return Some(false);
        };
        if (*first, *last) != (expected, expected) {
            return Some(false);
        }
        let mut input = String::new();
        for event in deltas {
            let StreamEvent::ContentBlockDelta { index, delta } = event else {
                return Some(false);
            };
            let fits = match delta {
                Delta::TextDelta { .. } | Delta::CitationsDelta { .. } => {
                    matches!(**content_block, ContentBlock::Text(_))
                }
                Delta::ThinkingDelta { .. } | Delta::SignatureDelta { .. } => {
                    matches!(**content_block, ContentBlock::Thinking(_))
                }
                Delta::InputJsonDelta { partial_json } => {
                    input.push_str(partial_json);
                    matches!(**content_block, ContentBlock::ToolUse(_) | ContentBlock::ServerToolUse(_))
                }
            };
            if *index != expected || !fits {
                return Some(false);
            }
        }
        inputs_decide |= !input.is_empty() && serde_json::from_str::<Map<String, Value>>(&input).is_err();
    }
    let is_head = message.content.is_empty() && message.stop_reason.is_none();
    if inputs_decide && is_head { None } else { Some(is_head) }
}

/// Folding never panics, and takes exactly what is a reply.
fn check(events: Vec<StreamEvent>) -> Result<(), TestCaseError> {
    let expected = is_reply(&events);
    let folded = fold(events);
    if let Some(expected) = expected {
        prop_assert_eq!(folded.is_ok(), expected, "{:?}", folded);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_fold_is_the_message_that_was_told((message, events) in replies::reply()) {
        prop_assert_eq!(is_reply(&events), Some(true));
        prop_assert_eq!(fold(events), Ok(message));
    }

    #[test]
    fn events_left_out_doubled_or_moved_are_noticed(
        (_, mut events) in replies::reply(),
        changes in prop::collection::vec((0..4_u8, any::<[prop::sample::Index; 2]>()), 1..3),
    ) {
        for (change, [one, other]) in changes {
            if events.is_empty() {
                break;
            }
            let (one, other) = (one.index(events.len()), other.index(events.len()));
            match change {
                0 => _ = events.remove(one),
                1 => events.insert(other, events[one].clone()),
                2 => events.swap(one, other),
                _ => events.truncate(one),
            }
        }
        check(events)?;
    }

    #[test]
    fn any_events_in_any_order_never_panic(events in prop::collection::vec(replies::event(), 0..12)) {
        check(events)?;
    }
}

fn head() -> StreamEvent {
    StreamEvent::MessageStart {
        message: Box::new(Message {
            model: "m".to_owned(),
            id: MessageId::mint(&mut SeededIds::new(1)),
            tag: MessageTag::Message,
            role: AssistantRole::Assistant,
            content: Vec::new(),
            container: None,
            stop_reason: None,
            stop_sequence: None,
            stop_details: None,
            usage: Usage::default(),
        }),
    }
}

fn tool_use(index: usize) -> StreamEvent {
    let id = ToolUseId::mint(&mut SeededIds::new(2));
    let block = ToolUseBlock { id, name: "a".to_owned(), input: json!({}), caller: None, rest: Map::new() };
    StreamEvent::ContentBlockStart { index, content_block: Box::new(ContentBlock::ToolUse(block)) }
}

fn input(index: usize, partial_json: &str) -> StreamEvent {
    StreamEvent::ContentBlockDelta { index, delta: Delta::InputJsonDelta { partial_json: partial_json.to_owned() } }
}

fn end(stop_reason: StopReason) -> StreamEvent {
    let delta = MessageDelta { stop_reason, stop_sequence: None, stop_details: None, container: None };
    StreamEvent::MessageDelta { delta: Box::new(delta), usage: Box::default() }
}

/// The first input of a reply whose only block has this input text, and ends like that.
fn folded_input(text: &str, stop_reason: StopReason) -> Result<Value, FoldError> {
    let stop = StreamEvent::ContentBlockStop { index: 0 };
    let events = [head(), tool_use(0), input(0, text), stop, end(stop_reason), StreamEvent::MessageStop];
    match fold(events)?.content.as_slice() {
        [ContentBlock::ToolUse(block)] => Ok(block.input.clone()),
        other => panic!("not the block that was told: {other:?}"),
    }
}

#[test]
fn an_input_may_be_cut_off_only_where_the_reply_was() {
    let cut = r#"{"sql":"SELECT 1","limit":1"#;
    for reason in
        [StopReason::MaxTokens, StopReason::StopSequence, StopReason::Refusal, StopReason::ModelContextWindowExceeded]
    {
        assert_eq!(folded_input(cut, reason), Ok(json!({"sql": "SELECT 1"})));
    }
    for reason in [StopReason::EndTurn, StopReason::ToolUse, StopReason::PauseTurn] {
        assert_eq!(folded_input(cut, reason), Err(FoldError::InputNotJson(0)));
        assert_eq!(folded_input("{}", reason), Ok(json!({})));
    }
}

#[test]
fn an_input_is_an_object() {
    for text in ["[]", "1", "null", "\"a\"", "{}{}", "{]", "garbage", "[{"] {
        assert_eq!(folded_input(text, StopReason::MaxTokens), Err(FoldError::InputNotJson(0)), "{text}");
    }
}

/// A reply that begins with cells has a head that was written before any model was asked.
#[test]
fn a_plain_reply_has_the_whole_usage() {
    let StreamEvent::MessageDelta { delta, mut usage } = end(StopReason::EndTurn) else { panic!("not an end") };
    let cache_creation = CacheCreation { ephemeral_5m_input_tokens: 7, ephemeral_1h_input_tokens: 0 };
    usage.settled = SettledUsage {
        cache_creation: Some(cache_creation),
        service_tier: Some("standard".to_owned()),
        inference_geo: Some("global".to_owned()),
        speed: Some("fast".to_owned()),
    };
    let last = StreamEvent::MessageDelta { delta, usage };
    assert_eq!(
        serde_json::to_value(&last).expect("an event serializes")["usage"].as_object().map(|it| it.len()),
        Some(4)
    );
    let usage = fold([head(), last, StreamEvent::MessageStop]).expect("it folds").usage;
    assert_eq!(usage.cache_creation, Some(cache_creation));
    assert_eq!((usage.service_tier.as_deref(), usage.inference_geo.as_deref()), (Some("standard"), Some("global")));
    assert_eq!(usage.speed.as_deref(), Some("fast"));
}

/// As in the official SDKs: a signature is whole, and a later one replaces it.
#[test]
fn the_last_signature_counts() {
    let block = ContentBlock::Thinking(ThinkingBlock::default());
    let signature = |signature: &str| StreamEvent::ContentBlockDelta {
        index: 0,
        delta: Delta::SignatureDelta { signature: signature.to_owned() },
    };
    let folded = fold([
        head(),
        StreamEvent::ContentBlockStart { index: 0, content_block: Box::new(block) },
        signature("first"),
        signature("last"),
        StreamEvent::ContentBlockStop { index: 0 },
        end(StopReason::EndTurn),
        StreamEvent::MessageStop,
    ]);
    let expected = ThinkingBlock { signature: "last".to_owned(), ..ThinkingBlock::default() };
    assert_eq!(folded.map(|message| message.content), Ok(vec![ContentBlock::Thinking(expected)]));
}

#[test]
fn nothing_follows_an_input_that_was_cut_off() {
    let stop = StreamEvent::ContentBlockStop { index: 0 };
    assert_eq!(fold([head(), tool_use(0), input(0, "{"), stop, tool_use(1)]), Err(FoldError::InputNotJson(0)));
}

/// Each sequence fails with its own fault.
fn check_faults(cases: Vec<(Vec<StreamEvent>, FoldError)>) {
    for (events, expected) in cases {
        let names: Vec<&str> = events.iter().map(StreamEvent::name).collect();
        assert_eq!(fold(events), Err(expected), "{names:?}");
    }
}

fn text_start() -> StreamEvent {
    StreamEvent::ContentBlockStart { index: 0, content_block: Box::new(ContentBlock::text("")) }
}

fn stop() -> StreamEvent {
    StreamEvent::ContentBlockStop { index: 0 }
}

fn end_turn() -> StreamEvent {
    end(StopReason::EndTurn)
}

#[test]
fn faults_of_the_frame_are_told_apart() {
    let error = ApiError::invalid("no");
    let failed = StreamEvent::Error { error: error.clone(), request_id: RequestId::mint(&mut SeededIds::new(3)) };
    let out_of_place = FoldError::OutOfPlace;
    check_faults(vec![
        (vec![], FoldError::Incomplete),
        (vec![head()], FoldError::Incomplete),
        (vec![head(), end_turn()], FoldError::Incomplete),
        (vec![head(), text_start(), stop()], FoldError::Incomplete),
        (vec![StreamEvent::MessageStop], out_of_place("message_stop")),
        (vec![head(), StreamEvent::MessageStop], out_of_place("message_stop")),
        (vec![end_turn()], out_of_place("message_delta")),
        (vec![head(), text_start(), end_turn()], out_of_place("message_delta")),
        (vec![head(), end_turn(), end_turn()], out_of_place("message_delta")),
        (vec![head(), head()], out_of_place("message_start")),
        (vec![head(), end_turn(), StreamEvent::MessageStop, StreamEvent::Ping], out_of_place("ping")),
        (vec![head(), failed], FoldError::Failed(error)),
    ]);
}

#[test]
fn faults_of_blocks_are_told_apart() {
    let out_of_place = FoldError::OutOfPlace;
    check_faults(vec![
        (vec![text_start()], out_of_place("content_block_start")),
        (vec![head(), text_start(), text_start()], out_of_place("content_block_start")),
        (vec![head(), tool_use(1)], out_of_place("content_block_start")),
        (vec![head(), end_turn(), text_start()], out_of_place("content_block_start")),
        (vec![head(), input(0, "{}")], out_of_place("content_block_delta")),
        (vec![head(), tool_use(0), input(1, "{}")], out_of_place("content_block_delta")),
        (vec![head(), text_start(), input(0, "{}")], FoldError::WrongDelta(0)),
        (vec![head(), stop()], out_of_place("content_block_stop")),
    ]);
}
