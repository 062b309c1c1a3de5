//! Which step comes next, told from conversations.

use serde_json::{Value, json};

use crate::asked::{asked, assistant, call, client_call, client_result, result, text, user};

const END: &str = "The script has no more steps.";

/// The name of the first call of each step of `parallel.yaml`, and its last text.
async fn step_of_parallel(messages: Value) -> String {
    let answer = asked(messages).script("parallel").answer().await;
    match answer.calls.first() {
        Some((_, input)) => input["command"].as_str().expect("a command").trim().to_owned(),
        None => answer.text,
    }
}

#[tokio::test]
async fn the_next_step_is_told_from_the_conversation() {
    let code_call = |id: &str| {
        let mut call = client_call(id);
        call["caller"] = json!({"type": "code_execution_20260120", "tool_id": "srvtoolu_A"});
        call
    };
    let cases: Vec<(&str, Value, &str)> = vec![
        ("a new conversation", json!([user(json!("go"))]), "one"),
        (
            "an earlier turn does not count",
            json!([
                user(json!("go")),
                assistant(json!([call("A"), result("A", ""), text("done")])),
                user(json!("again")),
            ]),
            "one",
        ),
        ("one result", json!([user(json!("go")), assistant(json!([text("x"), call("A"), result("A", "")]))]), "two"),
        (
            "parallel calls are one sampling",
            json!([
                user(json!("go")),
                assistant(json!([call("A"), text("and"), call("B"), result("A", ""), result("B", "")])),
            ]),
            "two",
        ),
        (
            "two samplings in one message",
            json!([
                user(json!("go")),
                assistant(json!([call("A"), result("A", ""), text("next"), call("B"), result("B", "")])),
            ]),
            "Done.",
        ),
        (
            "beyond the last step",
            json!([
                user(json!("go")),
                assistant(json!([call("A"), result("A", ""), call("B"), result("B", ""), call("C"), result("C", "")])),
            ]),
            END,
        ),
        (
            "a client tool's result",
            json!([
                user(json!("go")),
                assistant(json!([text("asking"), client_call("t1")])),
                user(json!([client_result("t1")])),
            ]),
            "two",
        ),
        (
            "two client results in two messages",
            json!([
                user(json!("go")),
                assistant(json!([client_call("t1"), client_call("t2")])),
                user(json!([client_result("t1")])),
                user(json!([client_result("t2")])),
            ]),
            "two",
        ),
        (
            "server and client calls, the server's run afterwards",
            json!([
                user(json!("go")),
                assistant(json!([call("A"), client_call("t1")])),
                user(json!([client_result("t1")])),
                assistant(json!([result("A", "")])),
            ]),
            "two",
        ),
        (
            "the same, one sampling later",
            json!([
                user(json!("go")),
                assistant(json!([call("A"), client_call("t1")])),
                user(json!([client_result("t1")])),
                assistant(json!([result("A", ""), call("B"), result("B", "")])),
            ]),
            "Done.",
        ),
        (
            "a call refused at once beside one that waits",
            json!([user(json!("go")), assistant(json!([call("A"), call("B"), result("A", ""), result("B", "")])),]),
            "two",
        ),
        (
            "a paused turn, its calls run by the continuation",
            json!([user(json!("go")), assistant(json!([call("A"), result("A", ""), call("B"), result("B", "")])),]),
            "Done.",
        ),
        (
            "calls made from code belong to the code",
            json!([
                user(json!("go")),
                assistant(json!([call("A"), code_call("t1")])),
                user(json!([client_result("t1")])),
                assistant(json!([code_call("t2")])),
                user(json!([client_result("t2")])),
                assistant(json!([result("A", "")])),
            ]),
            "two",
        ),
        (
            "the user's words in two messages, a system message between",
            json!([
                user(json!("go")),
                {"role": "system", "content": "be quick"},
                user(json!("on")),
                assistant(json!([call("A"), result("A", "")])),
            ]),
            "two",
        ),
        (
            "new words beside a result begin a new turn",
            json!([
                user(json!("go")),
                assistant(json!([client_call("t1")])),
                user(json!([client_result("t1"), text("start over")])),
            ]),
            "one",
        ),
        ("a prefill is no sampling", json!([user(json!("go")), assistant(json!("Sure: "))]), "one"),
    ];
    for (what, messages, expected) in cases {
        assert_eq!(step_of_parallel(messages).await, expected, "{what}");
    }
}

#[tokio::test]
async fn a_pause_without_a_call_goes_on() {
    let cases = [
        ("", "First. "),
        ("First. ", "Second. "),
        ("First. Second. ", "Third."),
        ("First. Second. Third.", "Third."),
        ("Something else", "First. "),
    ];
    for (said, expected) in cases {
        let mut messages = vec![user(json!("go"))];
        if !said.is_empty() {
            messages.push(assistant(json!([text(said)])));
        }
        let answer = asked(json!(messages)).script("pauses").answer().await;
        assert_eq!(answer.text, expected, "after {said:?}");
    }
}
