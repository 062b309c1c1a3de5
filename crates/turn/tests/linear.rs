//! A long conversation is gone on from in time that grows with its size, and no faster.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::{Duration, Instant};

use belljar_ids::SeededIds;
use belljar_turn::{Effect, ModelTraits, PlanContext, SAMPLINGS_MAX_DEFAULT, ToolLimits, ToolTexts, Turn, plan};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::request::MessagesRequest;
use serde_json::{Value, json};

/// A paused conversation of `rounds` rounds, each a message of the user, a server call with its result, and a call of the client's
/// with its own; at the end a call waits.
fn paused(rounds: usize) -> MessagesRequest {
    let call = |id: String| json!({"type": "server_tool_use", "id": id, "name": "bash_code_execution", "input": {"command": "true"}});
    let mut messages: Vec<Value> = Vec::new();
    for n in 0..rounds {
        let result = json!({"type": "bash_code_execution_tool_result", "tool_use_id": format!("srvtoolu_{n}"), "content":
            {"type": "bash_code_execution_result", "stdout": "", "stderr": "", "return_code": 0, "content": []}});
        messages.extend([
            json!({"role": "user", "content": "next"}),
            json!({"role": "assistant", "content": [call(format!("srvtoolu_{n}")), result,
                {"type": "tool_use", "id": format!("toolu_{n}"), "name": "t", "input": {}}]}),
            json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": format!("toolu_{n}"), "content": "ok"}]}),
            json!({"role": "assistant", "content": "ok"}),
        ]);
    }
    messages.push(json!({"role": "user", "content": "next"}));
    messages.push(json!({"role": "assistant", "content": [call("srvtoolu_last".to_owned())]}));
    let body = json!({"model": "local", "max_tokens": 100, "messages": messages,
        "tools": [{"type": "code_execution_20250825", "name": "code_execution"}, {"name": "t", "input_schema": {"type": "object"}}]});
    MessagesRequest::read(body.to_string().as_bytes()).unwrap()
}

/// The shortest of so many times from the request to the cell that it asks for.
fn shortest(tries: usize, rounds: usize) -> Duration {
    let request = paused(rounds);
    let times = (0..tries).map(|_| {
        let request = request.clone();
        let context = PlanContext {
            api_version: ApiVersion::V20230601,
            betas: &Betas::default(),
            samplings_max: SAMPLINGS_MAX_DEFAULT,
            limits: ToolLimits::default(),
            texts: ToolTexts::hosted(),
            model: ModelTraits::default(),
            hosted: None,
            lost_cells: &[],
        };
        let begun = Instant::now();
        let plan = plan(request, &context).unwrap();
        let (turn, effects) = Turn::start(plan, "req_01R".parse().unwrap(), Box::new(SeededIds::new(1)));
        let took = begun.elapsed();
        assert!(matches!(effects.last(), Some(Effect::RunCell { .. })));
        drop(turn);
        took
    });
    times.min().unwrap()
}

/// Sixteen times the blocks, at most five times sixteen times the time: a loop within a loop would take sixteen times sixteen. A hundred
/// and sixty times the blocks no longer fit into the processor's caches, which costs up to four times as much a block (a loop within a
/// loop would cost a hundred and sixty times as much).
#[test]
fn resuming_is_linear_in_the_size_of_the_conversation() {
    let (short, long) = (shortest(7, 100), shortest(7, 1600));
    assert!(long < short * 16 * 5, "{short:?} for 600 blocks, {long:?} for 9,600");
    let longest = shortest(2, 16_000);
    assert!(longest < short * 160 * 16, "{short:?} for 600 blocks, {longest:?} for 96,000");
}
