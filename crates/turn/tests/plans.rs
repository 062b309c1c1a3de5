//! What a request comes to: uploads, tools as the model sees them, waiting calls.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use belljar_ids::{RequestId, SeededIds};
use belljar_turn::{Effect, ModelTraits, PlanContext, SAMPLINGS_MAX_DEFAULT, ToolLimits, Turn, TurnPlan, plan};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::error::ApiError;
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{ModelTool, SamplingRequest};
use belljar_wire::tool::{SubTool, ToolVersion};
use serde_json::{Value, json};

fn planned(members: Value) -> TurnPlan {
    try_plan(members).unwrap()
}

fn try_plan(members: Value) -> Result<TurnPlan, ApiError> {
    let mut body = json!({
        "model": "local",
        "max_tokens": 100,
        "messages": [{ "role": "user", "content": "hi" }],
    });
    for (key, value) in members.as_object().unwrap() {
        body[key] = value.clone();
    }
    let request = MessagesRequest::read(body.to_string().as_bytes()).unwrap();
    let betas = Betas::read(["compact-2026-01-12"]).unwrap();
    let context = PlanContext {
        api_version: ApiVersion::V20230601,
        betas: &betas,
        samplings_max: SAMPLINGS_MAX_DEFAULT,
        limits: ToolLimits::default(),
        model: ModelTraits::default(),
    };
    plan(request, &context)
}

fn first_sampling(plan: TurnPlan) -> SamplingRequest {
    let request_id: RequestId = "req_01R".parse().unwrap();
    let (_, mut effects) = Turn::start(plan, request_id, Box::new(SeededIds::new(1)));
    assert_eq!(effects.len(), 1);
    match effects.remove(0) {
        Effect::Sample(request) => *request,
        other => panic!("{other:?}"),
    }
}

fn code(version: &str) -> Value {
    json!({ "type": format!("code_execution_{version}"), "name": "code_execution" })
}

fn user(files: &[&str]) -> Value {
    let uploads = files.iter().map(|file| json!({ "type": "container_upload", "file_id": file }));
    let text = json!({ "type": "text", "text": "x" });
    json!({ "role": "user", "content": uploads.chain([text]).collect::<Vec<_>>() })
}

#[test]
fn uploads_are_those_of_this_turn_or_all_of_them_for_a_fresh_container() {
    let finished = json!({ "role": "assistant", "content": "done" });
    let calls = json!({ "role": "assistant", "content": [
        { "type": "tool_use", "id": "toolu_1", "name": "t", "input": {} }] });
    let results = json!({ "role": "user", "content": [
        { "type": "tool_result", "tool_use_id": "toolu_1" },
        { "type": "container_upload", "file_id": "file_C" }] });
    let cases = [
        (json!([user(&["file_A", "file_B", "file_A"])]), vec!["file_A", "file_B"], vec!["file_A", "file_B"]),
        (json!([user(&["file_A"]), finished, user(&["file_B"])]), vec!["file_B"], vec!["file_A", "file_B"]),
        (json!([user(&["file_A"]), finished, user(&[])]), vec![], vec!["file_A"]),
        // A client tool's exchange does not end the turn.
        (json!([user(&["file_A"]), calls, results]), vec!["file_A", "file_C"], vec!["file_A", "file_C"]),
        // Nor does a reply that is being gone on from.
        (json!([user(&["file_A"]), finished]), vec!["file_A"], vec!["file_A"]),
    ];
    for (messages, named, fresh) in cases {
        let mut members = json!({
            "messages": messages,
            "tools": [code("20250825"), { "name": "t", "input_schema": {} }],
        });
        assert_eq!(planned(members.clone()).uploads, fresh, "{messages}");
        members["container"] = json!("container_01A");
        assert_eq!(planned(members).uploads, named, "{messages}");
    }
}

#[test]
fn the_container_is_named_in_any_form() {
    let cases = [
        (json!("container_01A"), Some("container_01A")),
        (json!({ "id": "whatever" }), Some("whatever")),
        (json!({}), None),
        (Value::Null, None),
    ];
    for (container, id) in cases {
        let plan = planned(json!({ "container": container, "tools": [code("20250825")] }));
        assert_eq!(plan.container.as_deref(), id);
        assert_eq!(plan.has_code_execution, Some(ToolVersion::V20250825));
    }
    assert_eq!(planned(json!({})).has_code_execution, None);
}

#[test]
fn the_model_sees_sub_tools_in_place_of_the_tool() {
    let request = first_sampling(planned(json!({
        "tools": [
            { "name": "a", "input_schema": { "type": "object" },
              "allowed_callers": ["direct", "code_execution_20260120"], "strict": false },
            { "type": "code_execution_20260521", "name": "code_execution",
              "cache_control": { "type": "ephemeral" } },
            { "type": "bash_20250124", "name": "bash", "allowed_callers": ["direct"] },
        ],
        "system": "S",
        "context_management": { "edits": [] },
    })));
    let names: Vec<&str> = request.tools.iter().map(ModelTool::name).collect();
    assert_eq!(names, ["a", "bash_code_execution", "text_editor_code_execution", "bash"]);
    // The upstream must not start a sandbox of its own.
    let ModelTool::Custom(custom) = &request.tools[0] else {
        panic!("{:?}", request.tools[0]);
    };
    assert_eq!(custom.allowed_callers, None);
    let ModelTool::Vendor(vendor) = &request.tools[3] else {
        panic!("{:?}", request.tools[3]);
    };
    assert_eq!(vendor.rest.get("allowed_callers"), None);
    // The breakpoint stands behind the last sub-tool.
    let breakpoints: Vec<Option<&Value>> = request
        .tools
        .iter()
        .filter_map(|tool| match tool {
            ModelTool::Server { cache_control, .. } => Some(cache_control.as_ref()),
            ModelTool::Custom(_) | ModelTool::Vendor(_) => None,
        })
        .collect();
    assert_eq!(breakpoints, [None, Some(&json!({ "type": "ephemeral" }))]);
    // What is the upstream's business goes through.
    assert_eq!(request.betas, ["compact-2026-01-12"]);
    assert_eq!(request.rest.get("context_management"), Some(&json!({ "edits": [] })));
}

/// The time limit is told by the newest version alone (wire.md §4).
#[test]
fn tool_texts_differ_by_the_time_limit_only() {
    let text = |version: &str| {
        let request = first_sampling(planned(json!({ "tools": [code(version)] })));
        request.tools.iter().find_map(|tool| match tool {
            ModelTool::Server { sub_tool: SubTool::BashCodeExecution, description, .. } => Some(description.clone()),
            ModelTool::Server { .. } | ModelTool::Custom(_) | ModelTool::Vendor(_) => None,
        })
    };
    let (old, middle, new) = (text("20250825").unwrap(), text("20260120").unwrap(), text("20260521").unwrap());
    assert_eq!(old, middle);
    let added = new.strip_prefix(&old).unwrap();
    assert_eq!(
        added,
        "\n\nA call may run for at most 90 seconds; then it is stopped. Split longer work into several calls and keep what is \
         done in files."
    );
}

#[test]
fn traits_go_by_the_whole_model_name() {
    let cases = [
        ("claude-opus-4-6", false, true, true),
        ("claude-opus-4-6-20260101", false, true, true),
        ("claude-opus-4-60", true, true, true),
        ("claude-opus-4-7", false, false, true),
        ("claude-opus-5", false, false, false),
        ("claude-opus-5-5", false, false, false),
        ("claude-sonnet-4-5", true, true, true),
        ("qwen3:32b", true, true, true),
        ("", true, true, true),
    ];
    for (name, prefill, sampling_parameters, forced_tool_choice) in cases {
        let traits = ModelTraits::of(name);
        let told = (traits.prefill, traits.sampling_parameters, traits.forced_tool_choice);
        assert_eq!(told, (prefill, sampling_parameters, forced_tool_choice), "{name}");
    }
}

/// A chain of references as long as a body may hold: no deep stack, no endless work, and the loop at its end is found.
#[test]
fn long_chains_of_references_are_followed_to_their_end() {
    let refs = 20_000;
    for (last, circular) in [(refs + 1, false), (refs / 2, true)] {
        let target = |n: usize| if n == refs { last } else { n + 1 };
        let chain: serde_json::Map<String, Value> =
            (0..=refs).map(|n| (n.to_string(), json!({ "$ref": format!("#/$defs/{}", target(n)) }))).collect();
        let schema = json!({ "$ref": "#/$defs/0", "$defs": chain });
        let callers = ["direct", "code_execution_20260120"];
        let tool = json!({ "name": "t", "input_schema": schema, "allowed_callers": callers });
        let error = try_plan(json!({ "tools": [tool] })).err();
        let text = "tools.0.custom.input_schema: Circular $ref detected; tools that can be called from code cannot have \
                    recursive schemas";
        assert_eq!(error.map(|error| error.message), circular.then(|| text.to_owned()));
    }
}
