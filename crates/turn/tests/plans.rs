//! What a request comes to: uploads, tools as the model sees them, waiting calls.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use belljar_ids::{RequestId, SeededIds};
use belljar_turn::{
    Effect, ModelTraits, PlanContext, SAMPLINGS_MAX_DEFAULT, ToolLimits, ToolTexts, Turn, TurnPlan, plan,
};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::error::ApiError;
use belljar_wire::media::MediaKind;
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{ModelTool, SamplingRequest};
use belljar_wire::tool::{SubTool, ToolChoiceMode, ToolVersion};
use serde_json::{Value, json};

fn planned(members: Value) -> TurnPlan {
    try_plan(members).unwrap()
}

fn try_plan(members: Value) -> Result<TurnPlan, ApiError> {
    try_plan_for(members, ModelTraits::default())
}

fn try_plan_for(members: Value, model: ModelTraits) -> Result<TurnPlan, ApiError> {
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
        texts: ToolTexts::hosted(),
        model,
        hosted: None,
        lost_cells: &[],
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
fn all_files_that_blocks_show_are_named_with_their_places() {
    let shows = |tag: &str, id: &str| json!({ "type": tag, "source": { "type": "file", "file_id": id } });
    let inline = json!({ "type": "image", "source": { "type": "url", "url": "https://example.com/a.png" } });
    let listed =
        json!({ "type": "document", "source": { "type": "content", "content": [inline, shows("image", "file_C")] } });
    let sent = json!([
        { "role": "user", "content": [shows("document", "file_A"), inline, shows("image", "file_B")] },
        { "role": "assistant", "content": [{ "type": "tool_use", "id": "toolu_1", "name": "t", "input": {} }] },
        { "role": "user", "content": [
            { "type": "tool_result", "tool_use_id": "toolu_1", "content": [shows("image", "file_B")] }, listed] },
    ]);
    let planned = planned(json!({ "messages": sent, "tools": [{ "name": "t", "input_schema": {} }] }));
    let found: Vec<_> = planned.shown.iter().map(|one| (one.kind, one.file_id.as_str(), one.at.as_str())).collect();
    assert_eq!(
        found,
        [
            (MediaKind::Document, "file_A", "messages.0.content.0"),
            (MediaKind::Image, "file_B", "messages.0.content.2"),
            (MediaKind::Image, "file_B", "messages.2.content.0.tool_result.content.0"),
            (MediaKind::Image, "file_C", "messages.2.content.1.document.source.content.1"),
        ]
    );
    // What the model is asked is what was sent: whoever asks it knows the files.
    let asked = first_sampling(planned).messages;
    assert_eq!(serde_json::to_value(asked).unwrap(), sent);
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
    let names: Vec<&str> = request.tools.iter().filter_map(ModelTool::name).collect();
    assert_eq!(names, ["a", "bash_code_execution", "text_editor_code_execution", "code_execution", "bash"]);
    // The upstream must not start a sandbox of its own.
    let ModelTool::Custom(custom) = &request.tools[0] else {
        panic!("{:?}", request.tools[0]);
    };
    assert_eq!(custom.allowed_callers, None);
    let ModelTool::Vendor(vendor) = &request.tools[4] else {
        panic!("{:?}", request.tools[4]);
    };
    assert_eq!(vendor.allowed_callers, None);
    // The breakpoint stands behind the last sub-tool.
    let breakpoints: Vec<Option<&Value>> = request
        .tools
        .iter()
        .filter_map(|tool| match tool {
            ModelTool::Server { cache_control, .. } => Some(cache_control.as_ref()),
            ModelTool::Custom(_) | ModelTool::Vendor(_) | ModelTool::Hosted(_) => None,
        })
        .collect();
    assert_eq!(breakpoints, [None, None, Some(&json!({ "type": "ephemeral" }))]);
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
            ModelTool::Server { .. } | ModelTool::Custom(_) | ModelTool::Vendor(_) | ModelTool::Hosted(_) => None,
        })
    };
    let (old, middle, new) = (text("20250825").unwrap(), text("20260120").unwrap(), text("20260521").unwrap());
    assert_eq!(old, middle);
    let added = new.strip_prefix(&old).unwrap();
    assert_eq!(
        added,
        "\n\nA call may run for at most 300 seconds; then it is stopped. Split longer work into several calls and keep what is \
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

const FROM_CODE: [&str; 1] = ["code_execution_20260120"];

fn server_tools(request: &SamplingRequest) -> Vec<(SubTool, &str, Option<&Value>)> {
    let server = request.tools.iter().filter_map(|tool| match tool {
        ModelTool::Server { sub_tool, description, cache_control, .. } => {
            Some((*sub_tool, description.as_str(), cache_control.as_ref()))
        }
        ModelTool::Custom(_) | ModelTool::Vendor(_) | ModelTool::Hosted(_) => None,
    });
    server.collect()
}

/// wire.md §4, §10.1, §23: who is offered what.
#[test]
fn python_is_offered_where_code_can_call() {
    let direct = json!({ "name": "d", "input_schema": {} });
    let both = json!({ "name": "b", "input_schema": {}, "allowed_callers": ["direct", "code_execution_20260521"] });
    let only = json!({ "name": "o", "input_schema": {}, "allowed_callers": FROM_CODE });
    let vendor = json!({ "type": "memory_20250818", "name": "m", "allowed_callers": FROM_CODE });
    let old = json!({ "name": "o", "input_schema": {}, "allowed_callers": ["code_execution_20250825"] });
    let (bash, editor, python) = ("bash_code_execution", "text_editor_code_execution", "code_execution");
    let cases = [
        (json!([code("20260120"), direct]), vec![bash, editor, "d"], Some(ToolVersion::V20260120)),
        (json!([direct, code("20260521"), both]), vec!["d", bash, editor, python, "b"], Some(ToolVersion::V20260521)),
        (json!([only, direct, code("20260120")]), vec!["d", bash, editor, python], Some(ToolVersion::V20260120)),
        (json!([code("20260120"), vendor]), vec![bash, editor, python], Some(ToolVersion::V20260120)),
        (json!([code("20250825"), old]), vec![bash, editor, python], Some(ToolVersion::V20250825)),
        // Callers alone: Python, behind the client's own, as the newest version that they name.
        (json!([only, direct]), vec!["d", python], Some(ToolVersion::V20260120)),
        (json!([only, both]), vec!["b", python], Some(ToolVersion::V20260521)),
        (json!([old]), vec![python], Some(ToolVersion::V20260120)),
        (json!([direct]), vec!["d"], None),
    ];
    for (tools, expected, version) in cases {
        let plan = planned(json!({ "tools": tools }));
        assert_eq!(plan.has_code_execution, version, "{tools}");
        let request = first_sampling(plan);
        let names: Vec<&str> = request.tools.iter().filter_map(ModelTool::name).collect();
        assert_eq!(names, expected, "{tools}");
    }
}

/// The client's tools stand in Python's text, exactly; bash is told that they are commands; nothing else changes.
#[test]
fn tools_that_code_calls_are_described_where_code_is_written() {
    let schema = json!({ "type": "object", "properties": { "{memory_bytes_max}": { "type": "string" } } });
    let tools = json!([
        code("20260521"),
        { "name": "query-db", "description": "Runs SQL.\nReturns {rows}.", "input_schema": schema,
          "allowed_callers": FROM_CODE, "cache_control": { "type": "ephemeral" } },
        { "name": "print", "input_schema": { "type": "object" }, "allowed_callers": ["direct", "code_execution_20260120"] },
        { "type": "bash_20250124", "name": "bash", "allowed_callers": FROM_CODE },
    ]);
    let without = first_sampling(planned(json!({ "tools": [code("20260521")] })));
    let with = first_sampling(planned(json!({ "tools": tools })));
    let [(_, bash_before, _), (_, editor_before, _)] = server_tools(&without)[..] else { panic!("{without:?}") };
    let [(_, bash, None), (_, editor, None), (_, python, breakpoint)] = server_tools(&with)[..] else {
        panic!("{with:?}")
    };
    let bash_tools = include_str!("../data/texts/hosted/bash_tools.txt").trim_end();
    assert_eq!(bash, format!("{bash_before}\n\n{bash_tools}"));
    assert_eq!(editor, editor_before);
    // The breakpoint of a tool that stands in this text now stands behind this text.
    assert_eq!(breakpoint, Some(&json!({ "type": "ephemeral" })));
    let (own, described) = python.split_once(include_str!("../data/texts/hosted/python_tools.txt").trim_end()).unwrap();
    assert!(
        own.contains("names that the code binds are there in the next call") && own.contains("90 seconds"),
        "{own}"
    );
    assert_eq!(
        described,
        "\n\n`await query_db(input: dict) -> str` calls the tool `query-db`\nJSON Schema of `input`: \
         {\"type\":\"object\",\"properties\":{\"{memory_bytes_max}\":{\"type\":\"string\"}}}\nRuns SQL.\nReturns {rows}.\n\n\
         `await print_2(input: dict) -> str` calls the tool `print`\nJSON Schema of `input`: {\"type\":\"object\"}\n\n\
         `await bash(input: dict) -> str`\nJSON Schema of `input`: {\"type\":\"object\"}\nThe tool of type `bash_20250124`, with the input you know."
    );
}

/// A choice of the tool is one of Python where the model sees it, else of bash.
#[test]
fn the_chosen_tool_is_a_sub_tool() {
    let only = json!({ "name": "o", "input_schema": {}, "allowed_callers": FROM_CODE });
    let cases = [
        (json!([code("20260120")]), "bash_code_execution"),
        (json!([code("20250825")]), "bash_code_execution"),
        (json!([code("20260120"), only]), "code_execution"),
        (json!([only]), "code_execution"),
    ];
    for (tools, expected) in cases {
        let choice = json!({ "type": "tool", "name": "code_execution" });
        let request = first_sampling(planned(json!({ "tools": tools, "tool_choice": choice })));
        let mode = request.tool_choice.map(|choice| choice.mode);
        assert_eq!(mode, Some(ToolChoiceMode::Tool(expected.to_owned())), "{tools}");
    }
}

/// `code_execution: true` is the newest version that the model takes; anything less is nothing.
#[test]
fn the_boolean_declares_the_newest_version() {
    let own = json!({ "name": "t", "input_schema": {} });
    for (value, version) in [(json!(true), Some(ToolVersion::V20260521)), (json!(false), None), (Value::Null, None)] {
        let plan = planned(json!({ "code_execution": value, "tools": [own] }));
        assert_eq!(plan.has_code_execution, version);
        let names: Vec<String> =
            first_sampling(plan).tools.iter().filter_map(|tool| tool.name().map(str::to_owned)).collect();
        let expected: &[&str] = match version {
            Some(_) => &["t", "bash_code_execution", "text_editor_code_execution"],
            None => &["t"],
        };
        assert_eq!(names, expected);
    }
    let refusing = ModelTraits { tool_types_refused: &["code_execution_20260521"], ..ModelTraits::default() };
    let plan = try_plan_for(json!({ "code_execution": true }), refusing).unwrap();
    assert_eq!(plan.has_code_execution, Some(ToolVersion::V20260120));
    let all = ModelTraits {
        tool_types_refused: &[
            "code_execution_20250522",
            "code_execution_20250825",
            "code_execution_20260120",
            "code_execution_20260521",
        ],
        ..ModelTraits::default()
    };
    let error = try_plan_for(json!({ "code_execution": true }), all).unwrap_err();
    assert_eq!(error.message, "'local' does not support tool types: code_execution_20260521.");
    // The oldest version needs its header, also when nothing newer is left.
    let oldest = ModelTraits {
        tool_types_refused: &["code_execution_20250825", "code_execution_20260120", "code_execution_20260521"],
        ..ModelTraits::default()
    };
    let error = try_plan_for(json!({ "code_execution": true }), oldest).unwrap_err();
    assert!(error.message.starts_with("tools.0: `code_execution_20250522` requires"), "{error}");
}

/// wire.md §10.4: what the continuation of a pause comes to.
#[test]
fn a_continuation_names_its_cell_and_its_results() {
    let call = |id: &str| {
        json!({ "type": "tool_use", "id": id, "name": "o", "input": {},
                "caller": { "type": "code_execution_20260120", "tool_id": "srvtoolu_A" } })
    };
    let result = |id: &str, content: Value| json!({ "type": "tool_result", "tool_use_id": id, "content": content });
    let mut failed = result("toolu_3", json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]));
    failed["is_error"] = json!(true);
    let messages = json!([
        { "role": "user", "content": "hi" },
        // The documented example replays the call shortened and without a caller.
        { "role": "assistant", "content": [
            { "type": "server_tool_use", "id": "srvtoolu_A", "name": "code_execution", "input": {} },
            { "type": "server_tool_use", "id": "srvtoolu_B", "name": "bash_code_execution", "input": { "command": "ls" } },
            call("toolu_1")] },
        { "role": "user", "content": [result("toolu_1", json!("one"))] },
        { "role": "assistant", "content": [call("toolu_2"), call("toolu_3"), call("toolu_4")] },
        { "role": "user", "content": [
            failed, { "type": "tool_result", "tool_use_id": "toolu_4" }, result("toolu_2", json!("two"))] },
    ]);
    let only = json!({ "name": "o", "input_schema": {}, "allowed_callers": FROM_CODE });
    let plan =
        planned(json!({ "messages": messages, "tools": [code("20260120"), only], "container": "container_01A" }));
    assert!(plan.begins_with_cells());
    let resume = plan.resume.clone().unwrap();
    assert_eq!((resume.id.as_str(), resume.sub_tool), ("srvtoolu_A", SubTool::CodeExecution));
    let results: Vec<(&str, &str, bool)> = resume
        .results
        .iter()
        .map(|result| (result.tool_use_id.as_str(), result.text.as_str(), result.is_error))
        .collect();
    assert_eq!(results, [("toolu_2", "two", false), ("toolu_3", "ab", true), ("toolu_4", "", false)]);
    let request_id: RequestId = "req_01R".parse().unwrap();
    let (_, effects) = Turn::start(plan, request_id, Box::new(SeededIds::new(1)));
    assert!(
        matches!(&effects[..], [Effect::ResumeCell { tools, .. }, Effect::Emit(_)] if tools.len() == 1),
        "{effects:?}"
    );
}

/// As many pauses as a request has room for: to the model, one call with one result.
#[test]
fn endless_pauses_are_one_call() {
    let pauses = 20_000;
    let call = |n: usize| {
        json!({ "type": "tool_use", "id": format!("toolu_{n}"), "name": "o", "input": {},
                "caller": { "type": "code_execution_20260120", "tool_id": "srvtoolu_A" } })
    };
    let mut messages = vec![
        json!({ "role": "user", "content": "hi" }),
        json!({ "role": "assistant", "content": [
            { "type": "server_tool_use", "id": "srvtoolu_A", "name": "code_execution", "input": { "code": "x" } }, call(0)] }),
    ];
    for n in 0..pauses {
        let result = json!({ "type": "tool_result", "tool_use_id": format!("toolu_{n}"), "content": "ok" });
        messages.push(json!({ "role": "user", "content": [result] }));
        messages.push(json!({ "role": "assistant", "content": [call(n + 1)] }));
    }
    *messages.last_mut().unwrap() = json!({ "role": "assistant", "content": [
        { "type": "code_execution_tool_result", "tool_use_id": "srvtoolu_A", "content": {} }, { "type": "text", "text": "1" }] });
    messages.push(json!({ "role": "user", "content": "and?" }));
    let only = json!({ "name": "o", "input_schema": {}, "allowed_callers": FROM_CODE });
    let request = first_sampling(planned(json!({ "messages": messages, "tools": [only] })));
    let blocks: Vec<usize> = request.messages.iter().map(|message| message.content.blocks().len()).collect();
    assert_eq!(blocks, [0, 3, 0]);
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
