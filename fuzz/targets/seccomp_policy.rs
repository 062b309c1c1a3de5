//! The seccomp compiler on made-up policies: what it makes of them answers every call as the policy says, or it refuses them.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use belljar_jail::fuzzing::{call_names, embedded_policy_works, judged};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

#[derive(Arbitrary, Debug)]
struct Case {
    arm: bool,
    allow: Vec<Vec<u16>>,
    refuse: Vec<Refuse>,
    otherwise: u8,
    /// How many of the refused calls set-up needs.
    setup: u8,
    call: u16,
    arguments: [u64; 6],
}

#[derive(Arbitrary, Debug)]
struct Refuse {
    answer: u8,
    calls: Vec<u16>,
    when: Vec<Vec<Condition>>,
}

#[derive(Arbitrary, Debug)]
struct Condition {
    argument: u8,
    qword: bool,
    test: u8,
    value: u64,
}

const ANSWERS: [&str; 5] = ["EPERM", "ENOSYS", "EINVAL", "EAFNOSUPPORT", "done"];

fuzz_target!(init: assert!(embedded_policy_works()), |bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let Ok(case) = Case::arbitrary(&mut bytes) else { return };
    let architecture = if case.arm { "aarch64" } else { "x86_64" };
    let names = call_names(architecture);
    let calls = |numbers: &[u16]| -> Value {
        numbers.iter().map(|number| names[usize::from(*number) % names.len()]).collect()
    };
    let allow: Value = case.allow.iter().map(|group| json!({ "reason": "A.", "calls": calls(group) })).collect();
    let refuse: Value = case.refuse.iter().map(|group| refusal(group, calls(&group.calls))).collect();
    let otherwise = ANSWERS[usize::from(case.otherwise) % ANSWERS.len()];
    let always = case.refuse.iter().filter(|group| group.when.is_empty()).flat_map(|group| &group.calls);
    let setup = calls(&always.copied().take(case.setup.into()).collect::<Vec<_>>());
    let policy = json!({ "otherwise": otherwise, "setup": setup, "allow": allow, "refuse": refuse }).to_string();
    if let Some((answer, allowed)) = judged(&policy, architecture, case.call, case.arguments) {
        assert!(allowed.contains(&answer), "{answer:#x}, not {allowed:#x?}, by {policy}");
    }
});

fn refusal(group: &Refuse, calls: Value) -> Value {
    let when: Value = group.when.iter().map(|all| all.iter().map(condition).collect::<Value>()).collect();
    let answer = ANSWERS[usize::from(group.answer) % ANSWERS.len()];
    json!({ "reason": "A.", "answer": answer, "calls": calls, "when": when })
}

fn condition(condition: &Condition) -> Value {
    let test = ["has_bits", "is", "is_not"][usize::from(condition.test) % 3];
    json!({
        "argument": condition.argument,
        "width": if condition.qword { "qword" } else { "dword" },
        "test": { test: condition.value },
        "means": "x",
    })
}
