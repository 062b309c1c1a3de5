//! Every refusal of the policy, tried inside: the calls and their arguments come from the policy itself.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::harness::start_empty;
use crate::harness::words::{Answer, Argument};

#[derive(Deserialize)]
struct Policy {
    refuse: Vec<Refuse>,
}

#[derive(Deserialize)]
struct Refuse {
    architecture: Option<String>,
    answer: String,
    calls: Vec<String>,
    #[serde(default)]
    when: Vec<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Condition {
    argument: usize,
    test: Test,
    means: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Test {
    HasBits(u64),
    Is(u64),
    IsNot(u64),
}

type Numbers = BTreeMap<String, BTreeMap<String, i64>>;

/// Name, number, arguments, answer.
type Case = (String, i64, Vec<Argument>, Answer);

fn answer(name: &str) -> Answer {
    match name {
        "EPERM" => Answer::Failed(libc::EPERM),
        "ENOSYS" => Answer::Failed(libc::ENOSYS),
        "EINVAL" => Answer::Failed(libc::EINVAL),
        "EAFNOSUPPORT" => Answer::Failed(libc::EAFNOSUPPORT),
        "done" => Answer::Value(0),
        other => panic!("the policy has an answer {other}"),
    }
}

/// Arguments that this alternative is about; where a value is excepted, another one.
fn arguments(conditions: &[Condition]) -> Vec<Argument> {
    let mut numbers = [0_u64; 6];
    for condition in conditions {
        let slot = &mut numbers[condition.argument];
        match condition.test {
            Test::HasBits(bits) => *slot |= bits,
            Test::Is(value) => *slot = value,
            // A family, or a mode: neither of the values that policies make exceptions for.
            Test::IsNot(excepted) => *slot = if excepted == 0x0004_0000 { 0 } else { 0x0004_0000 },
        }
    }
    numbers.map(|number| Argument::Number(number.cast_signed())).to_vec()
}

fn cases() -> Vec<Case> {
    let policy: Policy = serde_json::from_str(include_str!("../../policy/seccomp.json")).expect("policy");
    let numbers: Numbers = serde_json::from_str(include_str!("../../policy/calls.json")).expect("calls");
    let numbers = &numbers[std::env::consts::ARCH];
    let here = |group: &&Refuse| group.architecture.as_deref().is_none_or(|name| name == std::env::consts::ARCH);
    let mut cases = Vec::new();
    for group in policy.refuse.iter().filter(here) {
        for call in &group.calls {
            let number = numbers[call];
            if group.when.is_empty() {
                cases.push((call.clone(), number, Vec::new(), answer(&group.answer)));
            }
            for conditions in &group.when {
                let means: Vec<_> = conditions.iter().map(|condition| condition.means.as_str()).collect();
                let name = format!("{call} {}", means.join(", "));
                cases.push((name, number, arguments(conditions), answer(&group.answer)));
            }
        }
    }
    cases
}

#[test]
fn every_refusal_of_the_policy_is_answered_as_written() {
    let (_rootfs, inside) = start_empty();
    let cases = cases();
    assert!(cases.len() > 100, "{} cases", cases.len());
    // The kernel exempts these from filters; tests/programs sees how it answers them itself.
    let exempt = |name: &str| ["uretprobe", "uprobe"].contains(&name);
    let wrong: Vec<_> = cases
        .into_iter()
        .filter(|(name, ..)| !exempt(name))
        .filter_map(|(name, number, arguments, expected)| {
            let found = inside.call(number, &arguments);
            (found != expected).then_some((name, found, expected))
        })
        .collect();
    assert_eq!(wrong, []);
    assert!(inside.end().success());
}

/// Numbers that this policy does not know: what kernels to come will have, and what none has.
#[test]
fn calls_to_come_are_refused_as_an_old_kernel_would() {
    let (_rootfs, inside) = start_empty();
    for number in (470..600).chain([1_023, 4_096, 0x4000_0000, 0x4000_0001]) {
        assert_eq!(inside.call(number, &[]), Answer::Failed(libc::ENOSYS), "{number}");
    }
    assert!(inside.end().success());
}

/// Each family there is, by its number: only one exists in a container.
#[test]
fn no_socket_family_but_one_exists() {
    let (_rootfs, inside) = start_empty();
    for family in (0..64).filter(|&family| family != i64::from(libc::AF_UNIX)) {
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET] {
                let arguments = [Argument::Number(family), Argument::Number(kind.into()), Argument::Number(0)];
                assert_eq!(inside.call(call, &arguments), Answer::Failed(libc::EAFNOSUPPORT), "{call} {family} {kind}");
            }
        }
    }
    assert!(inside.end().success());
}
