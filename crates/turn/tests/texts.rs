//! What a model is sent of the tool, whole: for each set of texts a file in `texts/`, named by its version. Who changes a text gives its
//! set a new version; `BELLJAR_BLESS=1` writes the file.

use std::fmt::Write as _;
use std::path::Path;

use belljar_turn::{ModelTraits, PlanContext, SAMPLINGS_MAX_DEFAULT, ToolLimits, ToolTexts, plan};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::request::MessagesRequest;
use belljar_wire::sampling::{ModelTool, SamplingRequest};
use belljar_wire::tool::ToolVersion;
use serde_json::{Value, json};

fn sampling(texts: &ToolTexts, tools: Value, system: Value) -> SamplingRequest {
    let body = json!({"model": "m", "max_tokens": 9, "system": system, "tools": tools,
        "messages": [{"role": "user", "content": "go"}]});
    let request = MessagesRequest::read(body.to_string().as_bytes()).expect("a legal request");
    let context = PlanContext {
        api_version: ApiVersion::read(Some("2023-06-01")).expect("a version"),
        betas: &Betas::read(["code-execution-2025-05-22"]).expect("betas"),
        samplings_max: SAMPLINGS_MAX_DEFAULT,
        limits: ToolLimits::default(),
        texts,
        model: ModelTraits::default(),
        hosted: None,
        lost_cells: &[],
    };
    plan(request, &context).expect("a plan").into_sampling()
}

/// Every sub-tool of every version, with and without something that code may call.
fn told(texts: &ToolTexts) -> String {
    let mut out = String::new();
    for (version, tag) in ToolVersion::ALL {
        let code = json!({"type": tag, "name": "code_execution"});
        let called = json!({"name": "look-up", "description": "Looks up.", "input_schema": {"type": "object"},
            "allowed_callers": ["code_execution_20260120"]});
        let mut asked = vec![(json!([code]), "alone")];
        if matches!(version, ToolVersion::V20260120 | ToolVersion::V20260521) {
            asked.push((json!([code, called]), "with a tool for code"));
        }
        for (tools, how) in asked {
            let request = sampling(texts, tools, Value::Null);
            let _infallible = writeln!(out, "==== {tag} {how}");
            if let Some(system) = &request.system {
                let _infallible = writeln!(out, "-- system\n{}", json!(system));
            }
            for tool in &request.tools {
                let ModelTool::Server { sub_tool, description, .. } = tool else { continue };
                let _infallible = writeln!(out, "-- {}\n{description}", sub_tool.name());
            }
        }
    }
    out
}

#[test]
fn what_a_model_is_told() {
    for texts in ToolTexts::all() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/texts/{}-{}.txt", texts.name, texts.version));
        let told = told(texts);
        if std::env::var_os("BELLJAR_BLESS").is_some() {
            std::fs::write(&path, &told).expect("the file can be written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(kept, told, "a changed text is a new version of its set: {}", path.display());
    }
}

#[test]
fn our_word_stands_behind_the_clients_system_prompt_where_there_is_code_to_run() {
    let plain = ToolTexts::plain();
    let code = json!([{"type": "code_execution_20250825", "name": "code_execution"}]);
    let system = |tools: &Value, system: Value| json!(sampling(plain, tools.clone(), system).system);
    let ours = system(&code, Value::Null);
    let ours = ours.as_str().expect("a text");
    assert_eq!(system(&code, json!("Be brief.")), json!(format!("Be brief.\n\n{ours}")));
    let blocks = system(&code, json!([{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]));
    assert_eq!(blocks[0]["cache_control"], json!({"type": "ephemeral"}));
    assert_eq!((blocks[1]["text"].as_str(), blocks.as_array().map(Vec::len)), (Some(ours), Some(2)));
    let own = json!([{"name": "look_up", "input_schema": {"type": "object"}}]);
    assert_eq!(system(&own, json!("Be brief.")), json!("Be brief."));
    assert_eq!(system(&own, Value::Null), Value::Null);
    assert_eq!(sampling(ToolTexts::hosted(), code, Value::Null).system, None);
}
