//! What planning costs per megabyte of history, resuming per block, and a step per delta, alone and with its way out.
#![allow(missing_docs, reason = "criterion's macros define undocumented items")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed bench")]

use std::hint::black_box;

use belljar_ids::{RequestId, SeededIds};
use belljar_turn::{
    Effect, Input, ModelTraits, PlanContext, SAMPLINGS_MAX_DEFAULT, ToolLimits, ToolTexts, Turn, TurnPlan, plan,
};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::event::{Delta, StreamEvent};
use belljar_wire::message::Usage;
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{SampledBlock, SamplingEvent};
use belljar_wire::sse;
use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};

/// A conversation of about `bytes` bytes: texts, server calls with results, client calls with results.
fn request(bytes: usize) -> MessagesRequest {
    let text = "x".repeat(1000);
    let mut messages: Vec<Value> = Vec::new();
    for n in 0..bytes.div_ceil(4 * 1000) {
        messages.extend([
            json!({ "role": "user", "content": [{ "type": "text", "text": text }] }),
            json!({ "role": "assistant", "content": [
                { "type": "server_tool_use", "id": format!("srvtoolu_{n}"), "name": "bash_code_execution",
                  "input": { "command": text } },
                { "type": "bash_code_execution_tool_result", "tool_use_id": format!("srvtoolu_{n}"),
                  "content": { "type": "bash_code_execution_result", "stdout": text, "stderr": "", "return_code": 0,
                               "content": [] } },
                { "type": "tool_use", "id": format!("toolu_{n}"), "name": "t", "input": {} }] }),
            json!({ "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": format!("toolu_{n}"), "content": text }] }),
            json!({ "role": "assistant", "content": "ok" }),
        ]);
    }
    messages.push(json!({ "role": "user", "content": "go on" }));
    let body = json!({ "model": "local", "max_tokens": 100, "messages": messages,
        "tools": [{ "type": "code_execution_20250825", "name": "code_execution" },
                  { "name": "t", "input_schema": { "type": "object" } }] });
    MessagesRequest::read(body.to_string().as_bytes()).unwrap()
}

fn planned(request: MessagesRequest) -> TurnPlan {
    let betas = Betas::default();
    let context = PlanContext {
        api_version: ApiVersion::V20261021,
        betas: &betas,
        samplings_max: SAMPLINGS_MAX_DEFAULT,
        limits: ToolLimits::default(),
        texts: ToolTexts::hosted(),
        model: ModelTraits::default(),
        hosted: None,
        lost_cells: &[],
    };
    plan(request, &context).unwrap()
}

fn started(plan: TurnPlan) -> Turn {
    let request_id: RequestId = "req_01R".parse().unwrap();
    Turn::start(plan, request_id, Box::new(SeededIds::new(1))).0
}

fn planning(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan");
    for bytes in [1000, 1_000_000] {
        let sent = request(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("plan_{bytes}_bytes_of_history"), |b| {
            b.iter_batched(|| sent.clone(), planned, BatchSize::LargeInput)
        });
        let plan = planned(request(bytes));
        group.bench_function(format!("start_with_{bytes}_bytes_of_history"), |b| {
            b.iter_batched(|| plan.clone(), started, BatchSize::LargeInput)
        });
    }
    group.finish();
}

/// A turn with an open block, which takes 1000 deltas.
fn opened(block: SampledBlock) -> Turn {
    let mut turn = started(planned(request(0)));
    let events = [SamplingEvent::Started { usage: Usage::default() }, SamplingEvent::BlockStarted(block)];
    for event in events {
        black_box(turn.step(Input::Sampled(event)));
    }
    turn
}

fn stepping(c: &mut Criterion) {
    let mut group = c.benchmark_group("step");
    group.throughput(Throughput::Elements(1000));
    let text = Delta::TextDelta { text: "twenty bytes of text".to_owned() };
    let json = Delta::InputJsonDelta { partial_json: "twenty bytes of code".to_owned() };
    let tool = SampledBlock::ToolUse { id: "toolu_1".parse().unwrap(), name: "bash_code_execution".to_owned() };
    for (name, block, delta) in [("text", SampledBlock::Text, text), ("input", tool, json)] {
        group.bench_function(format!("1000_{name}_deltas"), |b| {
            b.iter_batched(
                || {
                    let mut turn = opened(block.clone());
                    let head = Delta::InputJsonDelta { partial_json: "{\"command\":\"".to_owned() };
                    if matches!(block, SampledBlock::ToolUse { .. }) {
                        turn.step(Input::Sampled(SamplingEvent::BlockDelta(head)));
                    }
                    (turn, vec![delta.clone(); 1000])
                },
                |(mut turn, deltas)| {
                    for delta in deltas {
                        black_box(turn.step(Input::Sampled(SamplingEvent::BlockDelta(delta))));
                    }
                    turn
                },
                BatchSize::SmallInput,
            )
        });
    }
    group.finish();
}

/// A paused conversation of about `blocks` blocks: from the request to the cell that its last call asks for.
fn paused(blocks: usize) -> MessagesRequest {
    let mut content: Vec<Value> = Vec::new();
    for n in 0..blocks / 3 {
        content.extend([
            json!({ "type": "text", "text": "next" }),
            json!({ "type": "server_tool_use", "id": format!("srvtoolu_{n}"), "name": "bash_code_execution",
                    "input": { "command": "true" } }),
            json!({ "type": "bash_code_execution_tool_result", "tool_use_id": format!("srvtoolu_{n}"),
                    "content": { "type": "bash_code_execution_result", "stdout": "", "stderr": "", "return_code": 0,
                                 "content": [] } }),
        ]);
    }
    content.push(json!({ "type": "server_tool_use", "id": "srvtoolu_last", "name": "bash_code_execution",
                         "input": { "command": "true" } }));
    let body = json!({ "model": "local", "max_tokens": 100,
        "messages": [{ "role": "user", "content": "go on" }, { "role": "assistant", "content": content }],
        "tools": [{ "type": "code_execution_20250825", "name": "code_execution" }] });
    MessagesRequest::read(body.to_string().as_bytes()).unwrap()
}

fn resuming(c: &mut Criterion) {
    let mut group = c.benchmark_group("resume");
    for blocks in [1_000, 10_000, 100_000] {
        let sent = paused(blocks);
        group.throughput(Throughput::Elements(blocks as u64));
        group.bench_function(format!("{blocks}_blocks"), |b| {
            b.iter_batched(|| sent.clone(), |sent| started(planned(sent)), BatchSize::LargeInput)
        });
    }
    group.finish();
}

/// What the loop and the encoder add to each delta on its way out, beside copying the bytes that go out.
fn streaming(c: &mut Criterion) {
    let mut group = c.benchmark_group("stream");
    let delta = Delta::TextDelta { text: "twenty bytes of text".to_owned() };
    let event = StreamEvent::ContentBlockDelta { index: 0, delta: delta.clone() };
    let mut bytes = BytesMut::new();
    sse::encode(&event, &mut bytes);
    let encoded = bytes.freeze();
    group.throughput(Throughput::Elements(1000));
    group.bench_function("1000_deltas_stepped_and_encoded", |b| {
        b.iter_batched(
            || {
                (
                    opened(SampledBlock::Text),
                    vec![delta.clone(); 1000],
                    BytesMut::with_capacity(1000 * encoded.len() * 2),
                )
            },
            |(mut turn, deltas, mut out)| {
                for delta in deltas {
                    for effect in turn.step(Input::Sampled(SamplingEvent::BlockDelta(delta))) {
                        if let Effect::Emit(event) = effect {
                            sse::encode(&event, &mut out);
                        }
                    }
                }
                (turn, out)
            },
            BatchSize::SmallInput,
        )
    });
    group.bench_function("1000_deltas_copied_as_bytes", |b| {
        b.iter_batched(
            || BytesMut::with_capacity(1000 * encoded.len() * 2),
            |mut out| {
                for _ in 0..1000 {
                    out.extend_from_slice(black_box(&encoded));
                }
                out
            },
            BatchSize::SmallInput,
        )
    });
    group.finish();
}

criterion_group!(benches, planning, stepping, resuming, streaming);
criterion_main!(benches);
