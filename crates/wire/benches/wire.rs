//! What reading a history, writing a delta and folding a reply cost.

use std::hint::black_box;

use belljar_ids::{MessageId, SeededIds};
use belljar_wire::block::ContentBlock;
use belljar_wire::event::{Delta, MessageDelta, StreamEvent};
use belljar_wire::fold::fold;
use belljar_wire::message::{AssistantRole, Message, MessageTag, StopReason, Usage};
use belljar_wire::request::MessagesRequest;
use belljar_wire::sse::encode;
use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;

/// A body of about `bytes`: turns of a question, a bash call, its result, and an answer.
fn history(bytes: usize) -> Vec<u8> {
    let output = "2026-11-20 12:00:00\tmeasurement\t42.125\tok \"quoted\"\n".repeat(40);
    let turn = [
        json!({"role": "user", "content": [{"type": "text", "text": "Sum the revenue column, please."}]}),
        json!({"role": "assistant", "content": [
            {"type": "text", "text": "I will look at the file first."},
            {"type": "server_tool_use", "id": "srvtoolu_01ExampleC", "name": "bash_code_execution",
             "input": {"command": "head -40 \"$INPUT_DIR/sales.csv\""}},
            {"type": "bash_code_execution_tool_result", "tool_use_id": "srvtoolu_01ExampleC",
             "content": {"type": "bash_code_execution_result", "stdout": output, "stderr": "", "return_code": 0, "content": []}},
            {"type": "text", "text": "The sum is 42.", "citations": null}
        ]}),
    ];
    let turns = bytes / turn.iter().map(|message| message.to_string().len()).sum::<usize>();
    let messages: Vec<_> = (0..turns).flat_map(|_| turn.clone()).collect();
    let body = json!({"model": "any", "max_tokens": 4096, "messages": messages,
                      "tools": [{"type": "code_execution_20250825", "name": "code_execution"}]});
    body.to_string().into_bytes()
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    for megabytes in [1, 8] {
        let body = history(megabytes << 20);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("{megabytes}_mb_of_history"), |bencher| {
            bencher.iter_with_large_drop(|| MessagesRequest::read(black_box(&body)).expect("the body is valid"));
        });
    }
}

fn text_delta() -> StreamEvent {
    let text = "and the revenue of the ".to_owned();
    StreamEvent::ContentBlockDelta { index: 0, delta: Delta::TextDelta { text } }
}

fn write(criterion: &mut Criterion) {
    let event = text_delta();
    let mut out = BytesMut::with_capacity(4096);
    criterion.bench_function("encode/text_delta", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(black_box(&event), &mut out);
        });
    });
}

/// A reply of one text block in `deltas` pieces.
fn reply(deltas: usize) -> Vec<StreamEvent> {
    let message = Message {
        model: "any".to_owned(),
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
    let delta =
        MessageDelta { stop_reason: StopReason::EndTurn, stop_sequence: None, stop_details: None, container: None };
    let mut events = vec![
        StreamEvent::MessageStart { message: Box::new(message) },
        StreamEvent::ContentBlockStart { index: 0, content_block: Box::new(ContentBlock::text("")) },
    ];
    events.extend((0..deltas).map(|_| text_delta()));
    events.push(StreamEvent::ContentBlockStop { index: 0 });
    events.push(StreamEvent::MessageDelta { delta: Box::new(delta), usage: Box::default() });
    events.push(StreamEvent::MessageStop);
    events
}

fn fold_deltas(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fold");
    for deltas in [1_000, 10_000, 100_000] {
        let events = reply(deltas);
        group.throughput(Throughput::Elements(deltas as u64));
        group.bench_function(format!("{deltas}_deltas"), |bencher| {
            bencher.iter_batched(
                || events.clone(),
                |events| fold(events).expect("the reply folds"),
                BatchSize::LargeInput,
            );
        });
    }
}

/// Folding by size, as the plain form of a long reply is made: the pieces are as long as models send them.
fn fold_bytes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fold");
    for bytes in [1_000_000_usize, 8_000_000] {
        let text = "x".repeat(100);
        let delta = StreamEvent::ContentBlockDelta { index: 0, delta: Delta::TextDelta { text: text.clone() } };
        let mut events = reply(0);
        events.splice(2..2, std::iter::repeat_n(delta, bytes / text.len()));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("{}_mb_of_text", bytes / 1_000_000), |bencher| {
            bencher.iter_batched(
                || events.clone(),
                |events| fold(events).expect("the reply folds"),
                BatchSize::LargeInput,
            );
        });
    }
}

criterion_group!(benches, read, write, fold_deltas, fold_bytes);
criterion_main!(benches);
