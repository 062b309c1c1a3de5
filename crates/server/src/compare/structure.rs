//! Where the shapes of two answers differ.

use std::collections::HashMap;

use belljar_wire::difference::{Difference, KeyOrder, Side, differences, is_sorted};
use belljar_wire::normal::{Normal, Said};
use serde_json::{Value, json};

use super::answer::{Answer, Reply};

/// A server's part of a conversation: the ids that it has given, and what the file calls them.
pub struct Thread {
    /// Ids of the file, and this server's for the same things.
    pub known: HashMap<String, String>,
    recorded: Normal,
    told: Normal,
}

impl Thread {
    /// Of a conversation that has not begun.
    pub fn new() -> Self {
        let normal = || Normal::new(Said::LeftOut);
        Self { known: HashMap::new(), recorded: normal(), told: normal() }
    }

    /// Learns from a recorded reply and this server's which ids stand at the same places.
    pub fn learn(&mut self, question: &Value, asked: &Value, recorded: &Answer, told: &Answer) {
        self.recorded.request(question);
        self.told.request(asked);
        self.recorded.message(recorded.message());
        self.told.message(told.message());
        let told: HashMap<&String, &String> = self.told.ids().iter().map(|(id, name)| (name, id)).collect();
        for (recorded, name) in self.recorded.ids() {
            if let Some(id) = told.get(name) {
                self.known.insert(recorded.clone(), (*id).clone());
            }
        }
    }
}

/// Types of the blocks, with the tools that are called: two models need not go the same way.
pub fn outline(message: &Value) -> Vec<String> {
    let blocks = message["content"].as_array().into_iter().flatten();
    let kind = |block: &Value| {
        let kind = block["type"].as_str().unwrap_or("?");
        block["name"].as_str().map_or(kind.to_owned(), |name| format!("{kind} {name}"))
    };
    blocks.map(kind).collect()
}

/// The differences; `asked` is what each was sent.
pub fn compare(left: (&Value, &Answer), right: (&Value, &Answer)) -> Vec<Difference> {
    let ((left_asked, left), (right_asked, right)) = (left, right);
    if left.status != right.status {
        let side = |answer: &Answer| Side::Is(json!(answer.status));
        return vec![Difference { at: "(status)".to_owned(), left: side(left), right: side(right) }];
    }
    let (left_message, right_message) = (left.message(), right.message());
    let outlines = (outline(&left_message), outline(&right_message));
    if outlines.0 != outlines.1 {
        return of_other_ways(&left_message, &right_message, outlines);
    }
    let normal = |asked: &Value| {
        let mut normal = Normal::new(Said::LeftOut);
        normal.request(asked);
        normal
    };
    let (mut left_normal, mut right_normal) = (normal(left_asked), normal(right_asked));
    match (&left.reply, &right.reply) {
        (Reply::Stream(left), Reply::Stream(right)) => {
            let left = Value::from(left_normal.events(left.clone()));
            differences(&left, &right_normal.events(right.clone()).into(), KeyOrder::Counts)
        }
        (Reply::Plain(_), Reply::Plain(_) | Reply::Stream(_)) | (Reply::Stream(_), Reply::Plain(_)) => {
            let order = order(&left_message, &right_message);
            differences(&left_normal.message(left_message), &right_normal.message(right_message), order)
        }
    }
}

fn order(left: &Value, right: &Value) -> KeyOrder {
    if is_sorted(left) || is_sorted(right) { KeyOrder::Lost } else { KeyOrder::Counts }
}

/// Replies of other blocks: what is around them, and the first block of each kind that both have.
fn of_other_ways(left: &Value, right: &Value, outlines: (Vec<String>, Vec<String>)) -> Vec<Difference> {
    let side = |outline: &[String]| Side::Is(json!(outline));
    let mut found = vec![Difference { at: "(blocks)".to_owned(), left: side(&outlines.0), right: side(&outlines.1) }];
    let order = order(left, right);
    let mut add = |place: &str, left: Value, right: Value| {
        let normal = |value| Normal::new(Said::LeftOut).message(value);
        let found_here = differences(&normal(left), &normal(right), order);
        let there = |found: Difference| Difference { at: format!("{place}{}", found.at), ..found };
        found.extend(found_here.into_iter().map(there));
    };
    let around = |message: &Value| {
        let mut around = message.clone();
        around.as_object_mut().map(|members| members.shift_remove("content"));
        around
    };
    add("", around(left), around(right));
    let mut seen: Vec<&String> = Vec::new();
    for (index, kind) in outlines.0.iter().enumerate() {
        let other = outlines.1.iter().position(|other| other == kind).filter(|_| !seen.contains(&kind));
        if let Some(other) = other {
            add(&format!("(first {kind})."), left["content"][index].clone(), right["content"][other].clone());
        }
        seen.push(kind);
    }
    found
}
