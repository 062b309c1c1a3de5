//! The seccomp filters: reviewed data (`policy/seccomp.json`), compiled on the host, installed by the guest program.
//!
//! Several filters are stacked, and the kernel takes the strictest answer. The first decides by the call's number
//! alone: a search tree, because the kernel translates, and for its own table evaluates, every filter anew for each
//! container, which took 0.7 ms with the compiler's linear form. The others look at arguments, one for each answer;
//! the kernel asks them only for the few calls whose answer is not the same for all arguments.
//! Calls by another architecture's convention (i386) end the process; x32 numbers are nobody's and get the policy's
//! `otherwise`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use rustix::io::Errno;
use seccompiler::{BpfMap, TargetArch, compile_from_json, sock_filter};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::plan::BpfProgram;

const POLICY: &str = include_str!("../policy/seccomp.json");

/// What a refused call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Answer {
    #[serde(rename = "EPERM")]
    NotPermitted,
    #[serde(rename = "ENOSYS")]
    NoSuchCall,
    #[serde(rename = "EAFNOSUPPORT")]
    NoSuchFamily,
    /// Success, without anything having been done.
    #[serde(rename = "done")]
    Done,
}

impl Answer {
    fn errno(self) -> i32 {
        match self {
            Self::NotPermitted => libc::EPERM,
            Self::NoSuchCall => libc::ENOSYS,
            Self::NoSuchFamily => libc::EAFNOSUPPORT,
            Self::Done => 0,
        }
    }

    fn as_return(self) -> u32 {
        RET_ERRNO | self.errno().unsigned_abs()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    otherwise: Answer,
    allow: Vec<Allow>,
    refuse: Vec<Refuse>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allow {
    reason: String,
    architecture: Option<String>,
    calls: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refuse {
    reason: String,
    architecture: Option<String>,
    answer: Answer,
    calls: Vec<String>,
    /// Alternatives, each of conditions that must all hold; none means always.
    #[serde(default)]
    when: Vec<Vec<Condition>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    argument: u8,
    width: Width,
    test: Test,
    means: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Width {
    Dword,
    Qword,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Test {
    HasBits(u64),
    Is(u64),
    IsNot(u64),
}

/// Why the embedded policy is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PolicyError(String);

/// The policy as filters for this machine, in the order of installation. Compiled once.
pub(crate) fn compiled() -> Result<&'static [BpfProgram], PolicyError> {
    static COMPILED: OnceLock<Result<Vec<BpfProgram>, PolicyError>> = OnceLock::new();
    COMPILED.get_or_init(|| compile(std::env::consts::ARCH)).as_deref().map_err(Clone::clone)
}

fn compile(architecture: &str) -> Result<Vec<BpfProgram>, PolicyError> {
    let policy: Policy = serde_json::from_str(POLICY).map_err(|error| PolicyError(error.to_string()))?;
    let reasons = policy.allow.iter().map(|group| &group.reason);
    if reasons.chain(policy.refuse.iter().map(|group| &group.reason)).any(String::is_empty) {
        return Err(PolicyError("a group has no reason".to_owned()));
    }
    let here = |wanted: &Option<String>| wanted.as_deref().is_none_or(|name| name == architecture);
    let mut by_number: BTreeMap<&str, u32> = BTreeMap::new();
    let mut by_argument: BTreeMap<Answer, Vec<Value>> = BTreeMap::new();
    for group in policy.allow.iter().filter(|group| here(&group.architecture)) {
        by_number.extend(group.calls.iter().map(|call| (call.as_str(), RET_ALLOW)));
    }
    for group in policy.refuse.iter().filter(|group| here(&group.architecture)) {
        if group.when.is_empty() {
            let answer = group.answer.as_return();
            by_number.extend(group.calls.iter().map(|call| (call.as_str(), answer)));
        } else {
            let rules = by_argument.entry(group.answer).or_default();
            rules.extend(group.calls.iter().flat_map(|call| {
                let alternatives = group.when.iter();
                alternatives.map(move |conditions| rule(call, &group.reason, conditions))
            }));
        }
    }
    let mut programs = vec![by_tree(&by_number, policy.otherwise.as_return(), architecture)?];
    for (answer, rules) in by_argument {
        let filter = json!({
            "mismatch_action": "allow",
            "match_action": { "errno": answer.errno() },
            "filter": rules,
        });
        let mut made = run_compiler(&json!({ "filter": filter }), architecture)?;
        programs.extend(made.remove("filter").map(|program| packed(&program)));
    }
    Ok(programs)
}

/// `SECCOMP_RET_ALLOW` (`seccomp(2)`).
const RET_ALLOW: u32 = 0x7fff_0000;

/// `SECCOMP_RET_ERRNO`, to be joined with the number.
const RET_ERRNO: u32 = 0x0005_0000;

/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// `BPF_JMP | BPF_JGE | BPF_K`.
const JUMP_IF_AT_LEAST: u16 = 0x35;

/// `BPF_JMP | BPF_JEQ | BPF_K`.
const JUMP_IF_EQUAL: u16 = 0x15;

/// A filter that answers by the call's number.
fn by_tree(answers: &BTreeMap<&str, u32>, otherwise: u32, architecture: &str) -> Result<BpfProgram, PolicyError> {
    let (prologue, numbers) = numbers(answers.keys().copied(), architecture)?;
    let mut ranges = vec![(0, otherwise)];
    for (number, call) in numbers {
        let answer = answers.get(call.as_str()).copied().unwrap_or(otherwise);
        // What the range begun after the previous call says of this number is replaced.
        ranges.retain(|&(first, _)| first < number);
        ranges.push((number, answer));
        ranges.push((number + 1, otherwise));
    }
    ranges.dedup_by_key(|&mut (_, answer)| answer);
    let mut program = prologue;
    program.extend(tree(&ranges)?);
    Ok(packed(&program))
}

/// Binary search for the range that a number is in; each begins at its first number and ends where the next begins.
fn tree(ranges: &[(u32, u32)]) -> Result<Vec<sock_filter>, PolicyError> {
    let instruction = |code, jt, k| sock_filter { code, jt, jf: 0, k };
    match ranges {
        [] => Err(PolicyError("no ranges".to_owned())),
        [(_, answer)] => Ok(vec![instruction(RETURN, 0, *answer)]),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let middle = high.first().map_or(0, |&(first, _)| first);
            let low = tree(low)?;
            let over = u8::try_from(low.len()).map_err(|_| PolicyError("a jump in the tree is too far".to_owned()))?;
            let mut both = vec![instruction(JUMP_IF_AT_LEAST, over, middle)];
            both.extend(low);
            both.extend(tree(high)?);
            Ok(both)
        }
    }
}

/// The numbers of calls, and the beginning of every filter (checks the architecture, loads the number), both taken
/// from what the compiler makes of one-call filters: it has the tables.
fn numbers<'a>(
    calls: impl Iterator<Item = &'a str>,
    architecture: &str,
) -> Result<(Vec<sock_filter>, BTreeMap<u32, String>), PolicyError> {
    let filters: Value = calls
        .map(|call| {
            let filter = json!({
                "mismatch_action": "trap",
                "match_action": "allow",
                "filter": [rule(call, "", &[])],
            });
            (call.to_owned(), filter)
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut prologue = Vec::new();
    let mut numbers = BTreeMap::new();
    for (call, program) in run_compiler(&filters, architecture)? {
        match program.split_at_checked(4) {
            Some((beginning, [compare, ..])) if compare.code == JUMP_IF_EQUAL => {
                prologue = beginning.to_vec();
                numbers.insert(compare.k, call);
            }
            _ => return Err(PolicyError(format!("the filter for {call} looks strange"))),
        }
    }
    Ok((prologue, numbers))
}

/// One entry of the compiler's own form.
fn rule(call: &str, reason: &str, conditions: &[Condition]) -> Value {
    let mut rule = json!({ "syscall": call, "comment": reason });
    if !conditions.is_empty() {
        rule["args"] = conditions
            .iter()
            .map(|condition| {
                let (op, val) = match condition.test {
                    Test::HasBits(bits) => (json!({ "masked_eq": bits }), bits),
                    Test::Is(value) => (json!("eq"), value),
                    Test::IsNot(value) => (json!("ne"), value),
                };
                let width = match condition.width {
                    Width::Dword => "dword",
                    Width::Qword => "qword",
                };
                json!({
                    "index": condition.argument,
                    "type": width,
                    "op": op,
                    "val": val,
                    "comment": condition.means,
                })
            })
            .collect();
    }
    rule
}

fn run_compiler(filters: &Value, architecture: &str) -> Result<BpfMap, PolicyError> {
    let target = TargetArch::try_from(architecture).map_err(|error| PolicyError(error.to_string()))?;
    compile_from_json(filters.to_string().as_bytes(), target).map_err(|error| PolicyError(error.to_string()))
}

fn packed(program: &[sock_filter]) -> BpfProgram {
    BpfProgram(program.iter().map(pack).collect())
}

fn pack(instruction: &sock_filter) -> u64 {
    u64::from(instruction.code) << 48
        | u64::from(instruction.jt) << 40
        | u64::from(instruction.jf) << 32
        | u64::from(instruction.k)
}

fn unpack(packed: u64) -> sock_filter {
    let [c0, c1, jt, jf, k0, k1, k2, k3] = packed.to_be_bytes();
    sock_filter { code: u16::from_be_bytes([c0, c1]), jt, jf, k: u32::from_be_bytes([k0, k1, k2, k3]) }
}

/// Installs the filters on this process and all its future children. None at all is an error, not an open door.
pub(crate) fn install(programs: &[BpfProgram]) -> Result<(), Errno> {
    if programs.is_empty() {
        return Err(Errno::INVAL);
    }
    programs.iter().try_for_each(|program| {
        let instructions: Vec<sock_filter> = program.0.iter().copied().map(unpack).collect();
        seccompiler::apply_filter(&instructions).map_err(|error| match error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
                Errno::from_io_error(&error).unwrap_or(Errno::INVAL)
            }
            _ => Errno::INVAL,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn policy() -> Policy {
        serde_json::from_str(POLICY).expect("the policy parses")
    }

    #[test]
    fn compiles_for_every_supported_architecture() {
        for architecture in ["x86_64", "aarch64"] {
            let programs = compile(architecture).expect(architecture);
            assert_eq!(programs.len(), 3, "by number, EPERM, EAFNOSUPPORT");
        }
    }

    /// What a filter without conditions on arguments returns, by the rules of `BPF` (`bpf(4)` of the BSDs).
    fn run(program: &BpfProgram, architecture: u32, number: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let instruction = unpack(program.0[at]);
            at += 1;
            let mut jump = |taken: bool| {
                at += usize::from(if taken { instruction.jt } else { instruction.jf });
            };
            match instruction.code {
                0x20 if instruction.k == 0 => accumulator = number,
                0x20 if instruction.k == 4 => accumulator = architecture,
                JUMP_IF_EQUAL => jump(accumulator == instruction.k),
                JUMP_IF_AT_LEAST => jump(accumulator >= instruction.k),
                RETURN => return instruction.k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

    #[test]
    fn the_tree_says_of_every_number_what_the_policy_says() {
        let policy = policy();
        let mut expected = BTreeMap::new();
        let here = |wanted: &Option<String>| wanted.as_deref().is_none_or(|name| name == "x86_64");
        let calls = policy.allow.iter().filter(|group| here(&group.architecture));
        for call in calls.flat_map(|group| &group.calls) {
            expected.insert(call.as_str(), RET_ALLOW);
        }
        for group in policy.refuse.iter().filter(|group| group.when.is_empty()) {
            for call in &group.calls {
                expected.insert(call.as_str(), group.answer.as_return());
            }
        }
        let (_, numbers) = numbers(expected.keys().copied(), "x86_64").expect("numbers");
        let programs = compile("x86_64").expect("programs");
        for number in (0..2000).chain([0x4000_0000, 0x4000_0001, u32::MAX - 1, u32::MAX]) {
            let call = numbers.get(&number).map(String::as_str);
            let answer = call.map_or(policy.otherwise.as_return(), |call| expected[call]);
            assert_eq!(run(&programs[0], AUDIT_ARCH_X86_64, number), answer, "{number} {call:?}");
        }
        assert_eq!(numbers.len(), expected.len());
    }

    #[test]
    fn another_architectures_calls_end_the_process() {
        const AUDIT_ARCH_I386: u32 = 0x4000_0003;
        let programs = compile("x86_64").expect("programs");
        for number in [0, 1, 20, 102, 400] {
            assert_eq!(run(&programs[0], AUDIT_ARCH_I386, number), 0x8000_0000);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn numbers_are_the_kernels() {
        let calls = ["read", "openat", "clone3", "socket"];
        let (_, numbers) = numbers(calls.into_iter(), "x86_64").expect("numbers");
        let kernel = [libc::SYS_read, libc::SYS_openat, libc::SYS_clone3, libc::SYS_socket];
        for (call, number) in calls.into_iter().zip(kernel) {
            let number = u32::try_from(number).expect("number");
            assert_eq!(numbers.get(&number).map(String::as_str), Some(call));
        }
    }

    #[test]
    fn every_group_has_a_reason_and_every_call_one_place() {
        let policy = policy();
        let mut allowed = BTreeSet::new();
        for group in &policy.allow {
            assert!(group.reason.ends_with('.'), "{:?}", group.calls);
            for call in &group.calls {
                assert!(allowed.insert(call), "{call} is allowed twice");
            }
        }
        let mut refused = BTreeSet::new();
        for group in &policy.refuse {
            assert!(group.reason.ends_with('.'), "{:?}", group.calls);
            for call in &group.calls {
                assert!(refused.insert(call), "{call} is refused twice");
                assert_eq!(
                    allowed.contains(call),
                    !group.when.is_empty(),
                    "{call} is refused under conditions if and only if it is allowed otherwise"
                );
            }
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
        assert_eq!(install(&[]), Err(Errno::INVAL));
    }
}
