//! What a delta costs: nothing is allocated to write one, and next to nothing to fold one.

use allocation_counter::measure;
use belljar_ids::{MessageId, SeededIds};
use belljar_wire::block::ContentBlock;
use belljar_wire::event::{Delta, StreamEvent};
use belljar_wire::fold::Fold;
use belljar_wire::message::{AssistantRole, Message, MessageTag, Usage};
use belljar_wire::read::parse;
use belljar_wire::sse::encode;
use bytes::BytesMut;

fn delta(delta: Delta) -> StreamEvent {
    StreamEvent::ContentBlockDelta { index: 3, delta }
}

#[test]
fn writing_a_delta_allocates_nothing_while_there_is_room() {
    let text = "Größe \"42\"\n\u{1}".repeat(20);
    let events = [
        delta(Delta::TextDelta { text: text.clone() }),
        delta(Delta::InputJsonDelta { partial_json: text.clone() }),
        delta(Delta::ThinkingDelta { thinking: text }),
        StreamEvent::ContentBlockStop { index: 3 },
        StreamEvent::Ping,
    ];
    let mut out = BytesMut::with_capacity(64 * 1024);
    let info = measure(|| events.iter().for_each(|event| encode(event, &mut out)));
    assert!(out.len() > 1_000, "the events were written: {} bytes", out.len());
    assert_eq!(info.count_total, 0, "{info:?}");
    let no_room = measure(|| encode(&StreamEvent::Ping, &mut BytesMut::new()));
    assert_ne!(no_room.count_total, 0, "the counter does not count");
}

#[test]
fn folding_deltas_allocates_only_for_the_text_to_grow() {
    let head = Message {
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
    };
    let mut fold = Fold::default();
    let start = StreamEvent::ContentBlockStart { index: 0, content_block: Box::new(ContentBlock::text("")) };
    fold.push(StreamEvent::MessageStart { message: Box::new(head) }).expect("the head folds");
    fold.push(start).expect("the block begins");
    let deltas: Vec<StreamEvent> = (0..10_000)
        .map(|_| StreamEvent::ContentBlockDelta { index: 0, delta: Delta::TextDelta { text: "0123456789".to_owned() } })
        .collect();
    let info = measure(|| {
        for event in deltas {
            fold.push(event).expect("a delta folds");
        }
    });
    // 100,000 bytes by doubling: 10, 20, 40, … 163,840.
    assert!(info.count_total <= 16, "{info:?}");
}

/// Why there is a limit on values: without it, 32 MB of zeros would take 3 GB. With it, no body takes 400 MB.
#[test]
fn a_value_takes_bounded_memory_whatever_it_is() {
    const VALUE_BYTES_MAX: u64 = 400;
    for (piece, values_in_it) in [("0", 1), ("\"\"", 1), ("[]", 1), ("{}", 1), ("[0]", 2), ("{\"\":0}", 2)] {
        // Behind a power of two, where a growing list holds most room that it does not need.
        let pieces: usize = 16_385;
        let body = format!("[{piece}{}]", format!(",{piece}").repeat(pieces - 1));
        let info = measure(|| drop(parse(body.as_bytes()).expect("the body is JSON")));
        let value_bytes = info.bytes_max / (pieces as u64 * values_in_it);
        assert!(value_bytes <= VALUE_BYTES_MAX, "{piece}: {value_bytes} bytes");
    }
}
