//! What the host makes of a REPL's calls of tools, in any order with what their holder says.
#![no_main]

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::Duration;

use arbitrary::Arbitrary;
use belljar_sandbox::fuzzing::{CALLS_WAITING_MAX, Calls, CallsPart, Ledger, Packets, Piece, Resumption, Word, line};
use belljar_sandbox::{CodeTool, CodeTools, ToolAnswer, ToolCall};
use libfuzzer_sys::fuzz_target;
use rustix::net::{RecvFlags, recv};
use tokio::runtime::{Builder, Runtime};

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    /// The REPL says a piece of a text.
    Said { heard: u8, text: &'a str, last: bool },
    /// The holder answers what it was told of, but for the last so many.
    Resumed { text: &'a str, is_error: bool, left: u8 },
    /// The holder says nothing.
    Silent,
}

fn tools() -> CodeTools {
    let tool = |function: &str| CodeTool {
        name: function.to_owned(),
        function: function.to_owned(),
        description: String::new(),
        input_schema: serde_json::json!({}),
    };
    CodeTools::new(vec![tool("f"), tool("g")]).expect("good")
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
}

fuzz_target!(|steps: Vec<Step<'_>>| RUNTIME.with(|runtime| {
    let _inside = runtime.enter();
    let (line, mut pauses, _resumptions) = line(tools());
    let mut calls = Calls::new(Ledger::new(line, Duration::from_secs(1)));
    let (packets, theirs) = Packets::pair().expect("a socket pair");
    let mut held: Vec<ToolCall> = Vec::new();
    let mut left_over: BTreeSet<u64> = BTreeSet::new();
    let mut number = 0;
    for step in steps {
        let word = match step {
            Step::Said { heard, text, last } => {
                let part = if last { CallsPart::Last } else { CallsPart::More };
                if let Err(broken) = calls.take(Piece { heard: heard.into(), text: text.to_owned(), part }) {
                    assert!(!broken.is_empty());
                    return;
                }
                None
            }
            Step::Resumed { text, is_error, left } if !held.is_empty() => {
                let answer = |call: ToolCall| ToolAnswer { number: call.number, text: text.to_owned(), is_error };
                let unanswered = held.split_off(held.len() - usize::from(left).min(held.len() - 1));
                left_over = unanswered.iter().map(|call| call.number).collect();
                let answers = held.drain(..).map(answer).collect();
                Some(Word::Resumed(Resumption { answers, unanswered, tools: tools() }))
            }
            Step::Silent if !held.is_empty() => Some(Word::TimeUp),
            Step::Resumed { .. } | Step::Silent => None,
        };
        if let Some(word) = word {
            calls.heed(word, 1, &packets).expect("it listens");
            heard(&theirs);
        }
        calls.tell();
        while let Ok(told) = pauses.try_recv() {
            assert!(held.is_empty(), "told while it was to answer");
            assert!(!told.is_empty() && told.len() <= CALLS_WAITING_MAX);
            assert!(told.is_sorted_by_key(|call| call.number));
            for call in &told {
                if !left_over.remove(&call.number) {
                    number += 1;
                    assert_eq!(call.number, number);
                }
                assert!(["f", "g"].contains(&call.tool.as_str()));
            }
            held = told;
        }
    }
}));

/// Takes in whatever was sent.
fn heard(theirs: &OwnedFd) {
    let mut buffer = [0; 256];
    while recv(theirs, &mut buffer, RecvFlags::DONTWAIT).is_ok() {}
}
