//! Every rule of the rejection table that planning applies: the cases are data, the texts are exact.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use belljar_turn::{ModelTraits, PlanContext, SAMPLINGS_MAX_DEFAULT, ToolLimits, ToolTexts, plan};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::hosted_tool::HostedTools;
use belljar_wire::request::MessagesRequest;
use serde_json::{Value, json};

/// A case: `request` over a small default, and the error's text, or null where the request is accepted. `repeat` makes many of the
/// first item of a list in it, each with an id of its own.
fn verdict(case: &Value) -> Option<String> {
    let mut body = json!({
        "model": "local",
        "max_tokens": 100,
        "messages": [{ "role": "user", "content": "hi" }],
    });
    for (key, value) in case["request"].as_object().unwrap() {
        body[key] = value.clone();
    }
    if let Some(repeat) = case.get("repeat") {
        let list = body.pointer_mut(repeat["at"].as_str().unwrap()).unwrap().as_array_mut().unwrap();
        let times = usize::try_from(repeat["times"].as_u64().unwrap()).unwrap();
        let made = (0..times).map(|number| {
            let mut item = list[0].clone();
            item["id"] = format!("{}{number}", item["id"].as_str().unwrap()).into();
            item
        });
        *list = made.collect();
    }
    let betas = case.get("betas").and_then(Value::as_str);
    let betas = Betas::read(betas).unwrap();
    let version = case["version"].as_str().unwrap_or("2023-06-01");
    let request = MessagesRequest::read(body.to_string().as_bytes()).unwrap();
    let passed = case.get("server_tools").map(|families| {
        let families = families.as_array().unwrap().iter().map(|family| family.as_str().unwrap().to_owned());
        HostedTools::read(&families.collect::<Vec<_>>()).unwrap()
    });
    let context = PlanContext {
        api_version: ApiVersion::read(Some(version)).unwrap(),
        betas: &betas,
        samplings_max: SAMPLINGS_MAX_DEFAULT,
        limits: ToolLimits::default(),
        texts: ToolTexts::hosted(),
        model: ModelTraits::of(&request.model),
        hosted: passed.as_ref(),
        lost_cells: &[],
    };
    let error = plan(request, &context).err()?;
    assert_eq!(error.kind.status(), 400);
    assert_eq!(error.details, None);
    Some(error.message)
}

#[test]
fn each_rule_speaks_its_text() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/rules.json")).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let expected = case["error"].as_str().map(str::to_owned);
        let said = verdict(case);
        if said != expected {
            wrong.push(format!("row {}, {}:\n  expected {expected:?}\n  said     {said:?}", case["row"], case["why"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A rule without a case that breaks it could be deleted unnoticed.
#[test]
fn each_row_has_a_case_that_breaks_it() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/rules.json")).unwrap();
    let source = include_str!("../src/plan/rules.rs");
    let table = source.split("RULES: ").nth(1).unwrap().split("];").next().unwrap();
    let rows: Vec<&str> = table.split('"').skip(1).step_by(2).collect();
    assert_eq!(rows.len(), 41);
    for row in rows {
        let broken = |case: &&Value| case["row"] == row && case["error"].is_string();
        assert!(cases.iter().any(|case| broken(&case)), "row {row}");
    }
}
