//! The policy's rules on itself, and the filters against the policy.

use std::collections::BTreeSet;

use super::judge::{Call, answer, audit_architecture, expected, run};
use super::policy::numbers;
use super::*;

const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

fn policy() -> Policy {
    Policy::embedded().expect("the policy parses")
}

#[test]
fn compiles_for_every_supported_architecture() {
    for architecture in ARCHITECTURES {
        compile(&policy(), architecture).expect(architecture);
    }
}

/// A call that this list does not know is refused like one of a kernel to come; here it gets its place and its reason.
#[test]
fn every_call_of_the_kernel_has_its_place() {
    let policy = policy();
    for architecture in ARCHITECTURES {
        let mut placed: BTreeSet<&String> = policy.allowed(architecture).flat_map(|group| &group.calls).collect();
        placed.extend(policy.refused(architecture).flat_map(|group| &group.calls));
        let calls: BTreeSet<&String> = numbers(architecture).expect("a table").keys().collect();
        let without: Vec<_> = calls.difference(&placed).collect();
        assert!(without.is_empty(), "no group of the policy names these calls of {architecture}: {without:?}");
        let unknown: Vec<_> = placed.difference(&calls).collect();
        assert!(unknown.is_empty(), "{architecture} has no such calls: {unknown:?}");
    }
    assert_eq!(policy.otherwise, Answer::NoSuchCall, "what no group names is refused as a kernel without it would");
}

#[test]
fn every_reason_is_a_sentence() {
    let policy = policy();
    for architecture in ARCHITECTURES {
        let allowed = policy.allowed(architecture).map(|group| (&group.reason, &group.calls));
        for (reason, calls) in allowed.chain(policy.refused(architecture).map(|group| (&group.reason, &group.calls))) {
            assert!(reason.ends_with('.') && reason.len() > 10, "{calls:?}");
        }
        let conditions = policy.refused(architecture).flat_map(|group| group.when.iter().flatten());
        assert!(conditions.into_iter().all(|condition| !condition.means.is_empty()));
    }
}

/// Arguments on which conditions turn: each value, its neighbours, each bit, and the same with high bits that the
/// kernel may or may not look at.
fn telling_arguments(conditions: &[&Condition]) -> Vec<[u64; 6]> {
    let mut all = vec![[0; 6], [u64::MAX; 6]];
    for condition in conditions {
        let (Test::HasBits(value) | Test::Is(value) | Test::IsNot(value)) = condition.test;
        for changed in [value, value ^ 1, value.wrapping_add(1), value | 17, value | 1 << 32, value | 1 << 63] {
            let mut arguments = [0; 6];
            arguments[usize::from(condition.argument)] = changed;
            all.push(arguments);
        }
    }
    all
}

#[test]
fn the_filters_say_of_every_call_what_the_policy_says() {
    let policy = policy();
    for architecture in ARCHITECTURES {
        let filters = compile(&policy, architecture).expect("filters");
        let names: BTreeMap<u32, &str> =
            numbers(architecture).expect("a table").iter().map(|(name, number)| (*number, name.as_str())).collect();
        for number in (0..2000).chain([0x4000_0000, 0x4000_0001, 0x4000_0027, u32::MAX - 1, u32::MAX]) {
            let name = names.get(&number).copied();
            let groups =
                policy.refused(architecture).filter(|group| group.calls.iter().any(|call| Some(call.as_str()) == name));
            let conditions: Vec<_> = groups.flat_map(|group| group.when.iter().flatten()).collect();
            for arguments in telling_arguments(&conditions) {
                let call = Call { architecture: audit_architecture(architecture), number, arguments };
                let expected = expected(&policy, architecture, name, &arguments);
                assert_eq!(vec![answer(&filters, &call)], expected, "{name:?} {call:?}");
            }
        }
    }
}

#[test]
fn another_architectures_calls_end_the_process() {
    const AUDIT_ARCH_I386: u32 = 0x4000_0003;
    const AUDIT_ARCH_ARM: u32 = 0x4000_0028;
    const RET_KILL_PROCESS: u32 = 0x8000_0000;
    for architecture in ARCHITECTURES {
        let filters = compile(&policy(), architecture).expect("filters");
        for foreign in [AUDIT_ARCH_I386, AUDIT_ARCH_ARM] {
            for number in [0, 1, 20, 102, 400] {
                let call = Call { architecture: foreign, number, arguments: [0; 6] };
                assert_eq!(answer(&filters, &call), RET_KILL_PROCESS);
            }
        }
    }
}

/// The table of numbers against the compiler's own, as far as that knows the calls.
#[test]
fn numbers_are_the_kernels() {
    // Of Linux 6.13 and later; the compiler's table ends before.
    const NEWER: [&str; 8] = [
        "file_getattr",
        "file_setattr",
        "getxattrat",
        "listxattrat",
        "open_tree_attr",
        "removexattrat",
        "setxattrat",
        "uprobe",
    ];
    for architecture in ARCHITECTURES {
        for (call, number) in numbers(architecture).expect("a table") {
            let filter = json!({ "filter": {
                "mismatch_action": "trap",
                "match_action": "allow",
                "filter": [rule(call, "", &[])],
            } });
            match run_compiler(&filter, architecture) {
                Ok(made) => assert_eq!(made["filter"][4].k, *number, "{call}"),
                Err(error) => assert!(NEWER.contains(&call.as_str()), "{call}: {error}"),
            }
        }
    }
}

#[test]
fn a_policy_that_contradicts_itself_is_refused() {
    let cases = [
        (r#"{"otherwise":"ENOSYS","allow":[{"reason":"","calls":["read"]}],"refuse":[]}"#, "a group has no reason"),
        (
            r#"{"otherwise":"ENOSYS","allow":[{"reason":"A.","calls":["read","read"]}],"refuse":[]}"#,
            "read is allowed twice",
        ),
        (
            r#"{"otherwise":"ENOSYS","allow":[],"refuse":[{"reason":"A.","answer":"EPERM","calls":["bpf","bpf"]}]}"#,
            "bpf is refused twice",
        ),
        (
            r#"{"otherwise":"ENOSYS","allow":[{"reason":"A.","calls":["read"]}],"refuse":[{"reason":"A.","answer":"EPERM","calls":["read"]}]}"#,
            "read must be refused under conditions if and only if it is allowed otherwise",
        ),
        (
            r#"{"otherwise":"ENOSYS","allow":[{"reason":"A.","calls":["reed"]}],"refuse":[]}"#,
            "reed is no call of x86_64",
        ),
        (
            r#"{"otherwise":"ENOSYS","setup":["read"],"allow":[{"reason":"A.","calls":["read"]}],"refuse":[]}"#,
            "read, which set-up needs, must be refused",
        ),
        (
            r#"{"otherwise":"ENOSYS","setup":["mount"],"allow":[],"refuse":[]}"#,
            "mount, which set-up needs, must be refused",
        ),
        (
            r#"{"otherwise":"ENOSYS","allow":[{"reason":"A.","calls":["read"]}],"refuse":[{"reason":"A.","answer":"EPERM","calls":["read"],"when":[[],[{"argument":1,"width":"qword","test":{"is":1},"means":"x"}]]}]}"#,
            "an alternative has no condition",
        ),
    ];
    for (text, why) in cases {
        let made = Policy::parse(text).and_then(|policy| compile(&policy, "x86_64"));
        assert_eq!(made.err(), Some(PolicyError(why.to_owned())), "{text}");
    }
}

#[test]
fn instructions_survive_packing() {
    let instruction = sock_filter { code: 0x1234, jt: 0x56, jf: 0x78, k: 0x9abc_def0 };
    let back = unpack(pack(&instruction));
    assert_eq!((back.code, back.jt, back.jf, back.k), (0x1234, 0x56, 0x78, 0x9abc_def0));
}

#[test]
fn no_filter_is_an_error() {
    assert_eq!(install(&BpfProgram(Vec::new())), Err(Errno::INVAL));
}

/// What it lets by, against what all containers are refused: the calls of set-up, and those that only arguments decide on.
#[test]
fn the_first_filter_lets_by_what_set_up_needs_and_nothing_else() {
    let policy = policy();
    for architecture in ARCHITECTURES {
        let filters = compile(&policy, architecture).expect("filters");
        for (name, &number) in numbers(architecture).expect("a table") {
            let call = Call { architecture: audit_architecture(architecture), number, arguments: [0; 6] };
            let may = policy.allowed(architecture).any(|group| group.calls.contains(name));
            let first = run(&filters.first, &call);
            assert_eq!(first == RET_ALLOW, may || policy.setup.contains(name), "{name}");
        }
    }
}
