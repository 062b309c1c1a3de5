//! The conformance suite: our events must equal recorded ones but for ids, times, chunk boundaries, signatures and numbers of
//! tokens. Same blocks, same order, same keys, same nulls.
//!
//! A recorded request is read and planned as any other; what was recorded of the model is sampled, what was recorded of cells is
//! what they come to, and the turn decides what goes out in between. [`play`] tells how, [`judge`] what is meant to differ.
//!
//! * `fixtures/` are ours: written by hand from the specification of the wire, not recorded.
//! * Recordings of real traffic are an extra suite, run when `BELLJAR_RECORDINGS` names a folder of them. One that nobody has
//!   listed may show any of the listed kinds of differences, and nothing else.

mod judge;
mod pieces;
mod play;
mod recording;
mod stub;
mod table;

use std::path::Path;

use judge::{Kind, Listed, Verdict, check_kinds, judge};
use play::Conversation;
use recording::{Exchange, load};
use serde_json::{Value, json};
use table::Row;

fn kinds() -> Vec<Kind> {
    serde_json::from_str(include_str!("kinds.json")).expect("the kinds read")
}

fn fixtures() -> Vec<Listed> {
    serde_json::from_str(include_str!("fixtures.json")).expect("the list of fixtures reads")
}

fn recordings() -> Vec<Listed> {
    serde_json::from_str(include_str!("recordings.json")).expect("the list of recordings reads")
}

/// What an exchange shows that stands in no list of a listed recording: nothing.
fn unlisted(recording: &str, exchange: usize) -> Listed {
    Listed { recording: recording.to_owned(), exchange, shows: Default::default(), not_played: None }
}

fn play(name: &str, exchanges: &[Exchange], kinds: &[Kind], listed: &[Listed], may_be_unknown: bool) -> Row {
    let known = !may_be_unknown || listed.iter().any(|listed| listed.recording == name);
    let mut conversation = Conversation::new();
    let verdicts = exchanges.iter().enumerate().map(|(index, exchange)| -> Verdict {
        let outcome = conversation.play(exchange);
        let here = listed.iter().find(|listed| listed.recording == name && listed.exchange == index);
        let none = unlisted(name, index);
        judge(outcome, kinds, known.then_some(here.unwrap_or(&none)))
    });
    Row::new(name, verdicts.collect(), known)
}

fn report(rows: &[Row], kinds: &[Kind], mut faults: Vec<String>) {
    println!("{}", table::text(rows, kinds));
    faults.extend(rows.iter().flat_map(|row| row.faults.clone()));
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn fixture(name: &str) -> Vec<Exchange> {
    let played = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/fixtures"));
    let found = played.into_iter().find(|(fixture, _)| fixture == name);
    found.unwrap_or_else(|| panic!("there is no fixture {name}")).1
}

/// A suite that is content with everything would be green, too: each of these changes to a recorded reply is a fault.
#[test]
fn what_was_changed_is_seen() {
    type Change = fn(&mut Value);
    let events = "/__sse__";
    let changes: [(&str, &str, Change); 11] = [
        ("bash", events, |events| events[0]["data"]["message"]["extra"] = json!(null)),
        ("bash", events, |events| events[0]["event"] = json!("message_begin")),
        ("bash", events, |events| _ = remove(&mut events[0]["data"]["message"], "stop_sequence")),
        ("bash", events, |events| move_to_end(&mut events[0]["data"]["message"], "model")),
        ("bash", events, |events| _ = events.as_array_mut().expect("events").pop()),
        ("bash", events, |events| events.as_array_mut().expect("events").swap(2, 4)),
        ("upload", "/content", |content| move_to_end(&mut content[0], "id")),
        ("upload", "/content", |content| content[1]["tool_use_id"] = json!("srvtoolu_01another")),
        ("upload", "/container", |container| container["id"] = json!("file_01a")),
        ("container_reuse", "/content", |content| content[0]["caller"] = json!({ "type": "indirect" })),
        ("ptc_new_cell", "/content", |content| content[1]["caller"]["tool_id"] = json!("srvtoolu_01another")),
    ];
    let kinds = kinds();
    for (name, place, change) in changes {
        let (mut exchanges, mut conversation) = (fixture(name), Conversation::new());
        let before = judge(conversation.play(&exchanges[0]), &kinds, None);
        assert!(before.faults.is_empty(), "{name}: {:?}", before.faults);
        change(exchanges[0].response.body.pointer_mut(place).expect("the place is there"));
        let after = judge(Conversation::new().play(&exchanges[0]), &kinds, None);
        assert!(!after.faults.is_empty() || after.not_played.is_some(), "{name} {place}: nobody saw it");
    }
}

fn remove(value: &mut Value, key: &str) -> Value {
    let members = value.as_object_mut().expect("an object");
    members.shift_remove(key).expect("the member is there")
}

fn move_to_end(value: &mut Value, key: &str) {
    let moved = remove(value, key);
    value[key] = moved;
}

/// A list that names what is not there is a list of something else.
fn strays(listed: &[Listed], played: &[(String, Vec<Exchange>)]) -> Vec<String> {
    let there = |listed: &&Listed| {
        let recording = played.iter().find(|(name, _)| *name == listed.recording);
        recording.is_some_and(|(_, exchanges)| listed.exchange < exchanges.len())
    };
    let strays = listed.iter().filter(|listed| !there(listed));
    strays.map(|listed| format!("{} {} is listed and not there", listed.recording, listed.exchange)).collect()
}

#[test]
fn fixtures_are_equal() {
    let (kinds, listed) = (kinds(), fixtures());
    let played = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/fixtures"));
    assert!(played.len() >= 15, "fixtures are missing");
    let rows: Vec<Row> = played.iter().map(|(name, exchanges)| play(name, exchanges, &kinds, &listed, false)).collect();
    let mut faults = strays(&listed, &played);
    faults.extend(check_kinds(&kinds, &[&listed, &recordings()]));
    report(&rows, &kinds, faults);
}

#[test]
fn recordings_are_equal() {
    let Some(folder) = std::env::var_os("BELLJAR_RECORDINGS") else {
        println!("SKIP recordings_are_equal: BELLJAR_RECORDINGS names no folder of recordings");
        return;
    };
    let (kinds, listed) = (kinds(), recordings());
    let played = load(Path::new(&folder));
    assert!(!played.is_empty(), "no recordings in the folder");
    let rows: Vec<Row> = played.iter().map(|(name, exchanges)| play(name, exchanges, &kinds, &listed, true)).collect();
    // A folder of other recordings is welcome; of a known recording, each listed exchange must be there.
    let known = |listed: &&Listed| played.iter().any(|(name, _)| *name == listed.recording);
    let known: Vec<Listed> =
        listed.iter().filter(known).map(|listed| unlisted(&listed.recording, listed.exchange)).collect();
    report(&rows, &kinds, strays(&known, &played));
}
