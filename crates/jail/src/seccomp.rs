//! The seccomp filters: reviewed data (`policy/seccomp.json`), compiled on the host, installed by the guest program.
//! The numbers of the calls are data too (`policy/calls.json`): every call of Linux has its place in the policy.
//!
//! Two filters are stacked, and the kernel takes the stricter answer. The *first* decides by the call's number alone, and
//! lets by what set-up still has to do. It is a search tree, because the kernel translates every filter anew for whoever
//! installs it, and evaluates it for a table of its own, which took 0.7 ms with the compiler's linear form. Nurseries and
//! zygotes install it once, and all that they make inherits it. The *last*, with which set-up ends, refuses the calls of
//! set-up and looks at arguments; the kernel asks it only for the few calls whose answer is not the same for all arguments. The
//! compiler makes a program for each answer, and these are linked into one: each filter more costs every start some 30 us.
//! Calls by another architecture's convention (i386) end the process; x32 numbers are nobody's and get the policy's
//! `otherwise`.

#[cfg(any(test, fuzzing))]
pub(crate) mod judge;
pub(crate) mod policy;
#[cfg(test)]
#[path = "seccomp/tests/table.rs"]
pub(crate) mod table;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use rustix::io::Errno;
use seccompiler::{BpfMap, TargetArch, compile_from_json, sock_filter};
use serde_json::{Value, json};

use crate::plan::BpfProgram;
use policy::{Answer, Condition, Policy, PolicyError, Refuse, Test, Width};

/// The policy as filters, see the module's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filters {
    pub(crate) first: BpfProgram,
    pub(crate) last: BpfProgram,
}

/// The policy as filters for this machine. Compiled once.
pub(crate) fn compiled() -> Result<&'static Filters, PolicyError> {
    static COMPILED: OnceLock<Result<Filters, PolicyError>> = OnceLock::new();
    let made = || compile(&Policy::embedded()?, std::env::consts::ARCH);
    COMPILED.get_or_init(made).as_ref().map_err(Clone::clone)
}

pub(crate) fn compile(policy: &Policy, architecture: &str) -> Result<Filters, PolicyError> {
    policy.check()?;
    let mut by_number: BTreeMap<&str, u32> = BTreeMap::new();
    let mut later: BTreeMap<Answer, Vec<Value>> = BTreeMap::new();
    for group in policy.allowed(architecture) {
        by_number.extend(group.calls.iter().map(|call| (call.as_str(), RET_ALLOW)));
    }
    for group in policy.refused(architecture) {
        for call in &group.calls {
            let of_setup = policy.setup.contains(call);
            if of_setup || !group.when.is_empty() {
                later.entry(group.answer).or_default().extend(rules(call, group));
            }
            if group.when.is_empty() {
                by_number.insert(call, if of_setup { RET_ALLOW } else { as_return(group.answer) });
            }
        }
    }
    let mut by_answer = Vec::new();
    for (answer, rules) in later {
        let filter = json!({
            "mismatch_action": "allow",
            "match_action": { "errno": answer.errno() },
            "filter": rules,
        });
        let mut made = run_compiler(&json!({ "filter": filter }), architecture)?;
        by_answer.extend(made.remove("filter"));
    }
    let first = by_tree(&by_number, as_return(policy.otherwise), architecture)?;
    Ok(Filters { first, last: packed(&linked(&by_answer)?) })
}

/// A call of a group, as the compiler wants it: once for each alternative.
fn rules(call: &str, group: &Refuse) -> Vec<Value> {
    match &group.when[..] {
        [] => vec![rule(call, &group.reason, &[])],
        alternatives => alternatives.iter().map(|conditions| rule(call, &group.reason, conditions)).collect(),
    }
}

/// One program that answers as all of these do: the last one first, as the kernel would ask them, and what one allows is
/// for the next to say.
fn linked(programs: &[Vec<sock_filter>]) -> Result<Vec<sock_filter>, PolicyError> {
    let mut all = Vec::new();
    for program in programs.iter().rev() {
        let end = all.len() + program.len();
        for instruction in program {
            let allows = instruction.code == RETURN && instruction.k == RET_ALLOW;
            let over = u32::try_from(end - all.len() - 1).map_err(|_| PolicyError("too long".to_owned()))?;
            all.push(if allows { sock_filter { code: JUMP, jt: 0, jf: 0, k: over } } else { instruction.clone() });
        }
    }
    all.push(sock_filter { code: RETURN, jt: 0, jf: 0, k: RET_ALLOW });
    Ok(all)
}

/// `SECCOMP_RET_ALLOW` (`seccomp(2)`).
const RET_ALLOW: u32 = 0x7fff_0000;

/// `SECCOMP_RET_ERRNO`, to be joined with the number.
const RET_ERRNO: u32 = 0x0005_0000;

/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// `BPF_JMP | BPF_JA`.
const JUMP: u16 = 0x05;

/// `BPF_JMP | BPF_JGE | BPF_K`.
const JUMP_IF_AT_LEAST: u16 = 0x35;

/// `BPF_JMP | BPF_JEQ | BPF_K`.
const JUMP_IF_EQUAL: u16 = 0x15;

/// What the kernel is to make of a refusal.
fn as_return(answer: Answer) -> u32 {
    RET_ERRNO | answer.errno().unsigned_abs()
}

/// A filter that answers by the call's number.
fn by_tree(answers: &BTreeMap<&str, u32>, otherwise: u32, architecture: &str) -> Result<BpfProgram, PolicyError> {
    let numbers = policy::numbers(architecture)?;
    let mut by_number = BTreeMap::new();
    for (&call, &answer) in answers {
        let number = numbers.get(call).ok_or_else(|| PolicyError(format!("{call} is no call of {architecture}")))?;
        by_number.insert(*number, answer);
    }
    let mut ranges = vec![(0, otherwise)];
    for (number, answer) in by_number {
        // What the range begun after the previous call says of this number is replaced.
        ranges.retain(|&(first, _)| first < number);
        ranges.push((number, answer));
        ranges.push((number + 1, otherwise));
    }
    ranges.dedup_by_key(|&mut (_, answer)| answer);
    let mut program = beginning(architecture)?;
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

/// The beginning of every filter, which checks the architecture and loads the call's number: as the compiler makes it.
fn beginning(architecture: &str) -> Result<Vec<sock_filter>, PolicyError> {
    let one_call = json!({ "filter": {
        "mismatch_action": "trap",
        "match_action": "allow",
        "filter": [rule("read", "", &[])],
    } });
    let made = run_compiler(&one_call, architecture)?;
    match made.get("filter").and_then(|program| program.split_at_checked(4)) {
        Some((beginning, [compare, ..])) if compare.code == JUMP_IF_EQUAL => Ok(beginning.to_vec()),
        _ => Err(PolicyError("the compiler's filter looks strange".to_owned())),
    }
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

/// Installs a filter on this process and all its future children. An empty one is an error, not an open door.
pub(crate) fn install(program: &BpfProgram) -> Result<(), Errno> {
    let instructions: Vec<sock_filter> = program.0.iter().copied().map(unpack).collect();
    seccompiler::apply_filter(&instructions).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
            Errno::from_io_error(&error).unwrap_or(Errno::INVAL)
        }
        _ => Errno::INVAL,
    })
}

#[cfg(test)]
mod tests;
