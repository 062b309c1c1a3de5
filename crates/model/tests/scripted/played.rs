//! What a script's step sounds like: events, pieces, ids, usage, choice, faults.

use std::collections::HashSet;

use belljar_ids::{RequestId, SeededIds};
use belljar_model::{Upstream, UpstreamErrorKind};
use belljar_wire::error::ErrorKind;
use belljar_wire::event::Delta;
use belljar_wire::message::{StopReason, Usage};
use belljar_wire::sampling::{SampledBlock, SamplingEvent};
use futures_util::{FutureExt, StreamExt};
use serde_json::json;

use crate::asked::{asked, assistant, call, result, router, scripted, user};

fn usage(input_tokens: u64, output_tokens: u64) -> Usage {
    Usage { input_tokens, output_tokens, service_tier: Some("standard".to_owned()), ..Usage::default() }
}

fn text(piece: &str) -> SamplingEvent {
    SamplingEvent::BlockDelta(Delta::TextDelta { text: piece.to_owned() })
}

fn json_piece(piece: &str) -> SamplingEvent {
    SamplingEvent::BlockDelta(Delta::InputJsonDelta { partial_json: piece.to_owned() })
}

#[tokio::test]
async fn a_step_is_played_block_by_block() {
    let question = asked(json!([user(json!("please list the files"))]));
    let (events, error) = question.events().await;
    assert_eq!(error, None);
    let id = match &events[15] {
        SamplingEvent::BlockStarted(SampledBlock::ToolUse { id, .. }) => id.clone(),
        other => panic!("{other:?}"),
    };
    assert!(id.as_str().starts_with("toolu_01"));
    let mut expected =
        vec![SamplingEvent::Started { usage: usage(100, 1) }, SamplingEvent::BlockStarted(SampledBlock::Thinking)];
    expected.extend(
        ["A lis", "ting."]
            .map(|thinking| SamplingEvent::BlockDelta(Delta::ThinkingDelta { thinking: thinking.to_owned() })),
    );
    expected.extend([
        SamplingEvent::BlockDelta(Delta::SignatureDelta { signature: "c2ln".to_owned() }),
        SamplingEvent::BlockEnded,
        SamplingEvent::BlockStarted(SampledBlock::Text),
    ]);
    // Never more than five bytes, never half a character.
    expected.extend(["Grü", "ße, ", "世", "界: ", "runni", "ng it", "."].map(text));
    expected.extend([
        SamplingEvent::BlockEnded,
        SamplingEvent::BlockStarted(SampledBlock::ToolUse { id, name: "bash_code_execution".to_owned() }),
    ]);
    expected.extend(["{\"com", "mand\"", ":\"ls\\", "n\"}"].map(json_piece));
    expected.extend([
        SamplingEvent::BlockEnded,
        SamplingEvent::Ended {
            stop_reason: StopReason::ToolUse,
            stop_sequence: None,
            stop_details: None,
            usage: usage(100, 20),
        },
    ]);
    assert_eq!(events, expected);
}

#[tokio::test]
async fn ids_are_unique_and_repeatable() {
    let ids = |events: &[SamplingEvent]| -> Vec<String> {
        let ids = events.iter().filter_map(|event| match event {
            SamplingEvent::BlockStarted(SampledBlock::ToolUse { id, .. }) => Some(id.to_string()),
            _ => None,
        });
        ids.collect()
    };
    let first = asked(json!([user(json!("go"))])).script("parallel");
    let second = asked(json!([user(json!("go")), assistant(json!([call("A"), result("A", "")]))])).script("parallel");
    let mut other = asked(json!([user(json!("go"))])).script("parallel");
    other.hints.request_id = RequestId::mint(&mut SeededIds::new(8));
    let first_ids = ids(&first.events().await.0);
    assert_eq!(first_ids, ids(&first.events().await.0), "repeatable");
    assert_eq!(first_ids.len(), 2);
    assert_eq!(first_ids[1], "toolu_stated");
    let mut all: HashSet<String> = HashSet::new();
    for id in [&first_ids, &ids(&second.events().await.0), &ids(&other.events().await.0)] {
        all.insert(id[0].clone());
    }
    assert_eq!(all.len(), 3, "{all:?}");
}

#[tokio::test]
async fn what_a_step_leaves_out_is_filled_in() {
    let question = asked(json!([user(json!("go"))])).script("pauses");
    let (events, _) = question.events().await;
    let Some(SamplingEvent::Ended { stop_reason, usage, .. }) = events.last() else {
        panic!("no end");
    };
    // `[{"role":"user","content":"go"}]` is 32 bytes and no system prompt is 4; `First. ` is 7.
    assert_eq!((usage.input_tokens, usage.output_tokens), (9, 2));
    assert_eq!(*stop_reason, StopReason::PauseTurn);
    let said = assistant(json!([{"type": "text", "text": "First. Second. "}]));
    let (events, _) = asked(json!([user(json!("go")), said])).script("pauses").events().await;
    let Some(SamplingEvent::Ended { stop_reason, stop_sequence, .. }) = events.last() else {
        panic!("no end");
    };
    assert_eq!(*stop_reason, StopReason::StopSequence);
    assert_eq!(stop_sequence.as_deref(), Some("END"));
}

#[tokio::test]
async fn the_longest_match_chooses() {
    let second = asked(json!([user(json!("list the files")), assistant(json!([call("A"), result("A", "")])),]));
    assert_eq!(second.answer().await.text, "There are two.");
    let longer = asked(json!([user(json!([{"type": "text", "text": "list the files now"}]))]));
    let (events, error) = longer.events().await;
    assert_eq!(events, []);
    assert_eq!(error.expect("the longer match fails").client.message, "Slow down.");
    // Only the user's last words count.
    let earlier =
        asked(json!([user(json!("list the files")), assistant(json!("no")), user(json!("```bash\ntrue\n```")),]));
    assert_eq!(earlier.answer().await.calls[0].1, json!({"command": "true\n"}));
}

#[tokio::test]
async fn an_unknown_script_is_a_400_that_lists_the_known_ones() {
    let (events, error) = asked(json!([user(json!("go"))])).script("nope").events().await;
    let error = error.expect("an error");
    assert_eq!(events, []);
    assert_eq!(error.kind, UpstreamErrorKind::Rejected { status: 400 });
    assert_eq!(error.client.kind, ErrorKind::InvalidRequest);
    assert_eq!(
        error.client.message,
        "belljar-script: there is no script `nope`; this server has `bash`, `fault_cut`, `fault_late`, `fault_mid`, \
         `faults`, `parallel`, `pauses`, `slow`"
    );
    let bare = router(None).expect("no scripts are fine");
    let question = asked(json!([user(json!("go"))])).script("nope");
    let upstream = bare.route("any").expect("a route");
    let mut stream = upstream.sample(question.request, question.hints);
    let error = stream.next().await.expect("an item").expect_err("an error");
    assert_eq!(error.client.message, "belljar-script: there is no script `nope`; this server has no scripts");
}

#[tokio::test]
async fn faults_come_where_the_script_says() {
    let cases = [
        ("faults", 0, UpstreamErrorKind::RateLimited { retry_after: None }, "Slow down."),
        ("fault_mid", 3, UpstreamErrorKind::Overloaded { retry_after: None }, "Overloaded"),
        (
            "fault_cut",
            2,
            UpstreamErrorKind::Cut,
            "The connection to the model's upstream ended before its reply was complete.",
        ),
        // Beyond the events that there are: in place of the last.
        (
            "fault_late",
            4,
            UpstreamErrorKind::Cut,
            "The connection to the model's upstream ended before its reply was complete.",
        ),
    ];
    for (script, count, kind, message) in cases {
        let (events, error) = asked(json!([user(json!("go"))])).script(script).events().await;
        let error = error.expect("an error");
        assert_eq!((events.len(), error.kind, error.client.message.as_str()), (count, kind, message), "{script}");
        let ended = |event: &SamplingEvent| matches!(event, SamplingEvent::Ended { .. });
        assert!(!events.iter().any(ended), "{script}");
    }
}

#[tokio::test]
async fn a_delay_comes_before_each_piece() {
    let mut stream = asked(json!([user(json!("go"))])).script("slow").stream();
    assert!(matches!(stream.next().now_or_never(), Some(Some(Ok(SamplingEvent::Started { .. })))));
    let block = Some(Some(Ok(SamplingEvent::BlockStarted(SampledBlock::Text))));
    assert_eq!(stream.next().now_or_never(), block);
    assert_eq!(stream.next().now_or_never(), None, "a minute has not passed");
}

#[test]
fn names_are_the_configurations() {
    let upstream: &dyn Upstream = &*scripted();
    assert_eq!(upstream.name(), "built-in");
    assert_eq!(upstream.models(), Vec::<String>::new());
}
