//! A model that calls far too often in one sampling: what is not run is answered, and no continuation finds more than it may.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use belljar_ids::SeededIds;
use belljar_turn::{
    CALLS_AT_ONCE_MAX, Effect, Input, ModelTraits, PlanContext, SAMPLINGS_MAX_DEFAULT, ToolLimits, ToolTexts, Turn,
    plan,
};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::block::ContentBlock;
use belljar_wire::event::{Delta, StreamEvent};
use belljar_wire::message::{StopReason, Usage};
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{SampledBlock, SamplingEvent};
use serde_json::json;

fn start() -> Turn {
    let request = json!({"model": "local", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "code_execution_20250825", "name": "code_execution"},
                  {"name": "mine", "input_schema": {"type": "object"}}]});
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
    let request = MessagesRequest::read(request.to_string().as_bytes()).unwrap();
    Turn::start(plan(request, &context).unwrap(), "req_01R".parse().unwrap(), Box::new(SeededIds::new(1))).0
}

/// The effects of the sampling's end, after `calls` of bash and perhaps one of the client's.
fn sampled(turn: &mut Turn, calls: usize, of_the_client: bool) -> Vec<Effect> {
    turn.step(Input::Sampled(SamplingEvent::Started { usage: Usage::default() }));
    let bash = (0..calls).map(|_| ("bash_code_execution", "{\"command\":\"true\"}"));
    for (number, (name, input)) in bash.chain(of_the_client.then_some(("mine", "{}"))).enumerate() {
        let id = format!("toolu_{number}").parse().unwrap();
        turn.step(Input::Sampled(SamplingEvent::BlockStarted(SampledBlock::ToolUse { id, name: name.to_owned() })));
        let delta = Delta::InputJsonDelta { partial_json: input.to_owned() };
        turn.step(Input::Sampled(SamplingEvent::BlockDelta(delta)));
        turn.step(Input::Sampled(SamplingEvent::BlockEnded));
    }
    turn.step(Input::Sampled(SamplingEvent::Ended {
        stop_reason: StopReason::ToolUse,
        stop_sequence: None,
        stop_details: None,
        usage: Usage::default(),
    }))
}

fn refused(effects: &[Effect]) -> usize {
    let result = |effect: &&Effect| {
        matches!(effect, Effect::Emit(StreamEvent::ContentBlockStart {
            content_block: block, ..
        }) if matches!(**block, ContentBlock::BashCodeExecutionToolResult(_)) && serde_json::to_string(block).unwrap().contains("too_many_requests"))
    };
    effects.iter().filter(result).count()
}

#[test]
fn what_is_too_much_is_answered_and_not_run() {
    for (calls, surplus) in [(CALLS_AT_ONCE_MAX, 0), (CALLS_AT_ONCE_MAX + 3, 3)] {
        let effects = sampled(&mut start(), calls, false);
        assert_eq!(refused(&effects), surplus);
        assert!(matches!(effects.last(), Some(Effect::RunCell { .. })), "{:?}", effects.last());
    }
}

#[test]
fn no_more_is_left_to_a_continuation() {
    let effects = sampled(&mut start(), CALLS_AT_ONCE_MAX + 3, true);
    assert_eq!(refused(&effects), 3);
    assert!(matches!(effects.last(), Some(Effect::Finish(_))), "{:?}", effects.last());
}
