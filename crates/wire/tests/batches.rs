//! Bodies of `POST /v1/messages/batches` and what reading them says, as data: `batches.json`.

use belljar_wire::batch::{self, BATCH_ITEMS_MAX};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    raw: String,
    items: Option<Vec<(String, String)>>,
    error: Option<String>,
}

fn read(body: &[u8]) -> Result<Vec<(String, String)>, String> {
    match batch::read(body) {
        Ok(items) => Ok(items.into_iter().map(|item| (item.custom_id, item.params.to_owned())).collect()),
        Err(error) => {
            assert_eq!(error.kind.status(), 400);
            Err(error.message)
        }
    }
}

#[test]
fn bodies_are_read_or_refused() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("batches.json")).expect("batches.json holds cases");
    for case in cases {
        let expected = match (case.items, case.error) {
            (Some(items), None) => Ok(items),
            (None, Some(error)) => Err(error),
            _ => panic!("{}: either items or an error", case.name),
        };
        assert_eq!(read(case.raw.as_bytes()), expected, "{}", case.name);
    }
}

#[test]
fn a_list_may_be_long_and_no_longer() {
    let body = |items: usize| {
        let items: Vec<_> = (0..items).map(|n| format!("{{\"custom_id\":\"{n}\",\"params\":{{}}}}")).collect();
        format!("{{\"requests\":[{}]}}", items.join(","))
    };
    assert_eq!(read(body(BATCH_ITEMS_MAX).as_bytes()).map(|items| items.len()), Ok(BATCH_ITEMS_MAX));
    let error = "requests: List should have at most 100000 items after validation";
    assert_eq!(read(body(BATCH_ITEMS_MAX + 1).as_bytes()), Err(error.to_owned()));
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let found = read(b"{\"requests\": [{\"custom_id\": \"a\", \"params\": {\"x\": \"\xff\"}}]}");
    assert!(found.is_err_and(|error| error.starts_with("The request body is not valid JSON: ")));
}
