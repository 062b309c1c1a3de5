//! The seccomp filters: reviewed data (`policy/seccomp.json`), compiled on the host, installed by the guest program.
//!
//! Several filters are stacked. The kernel runs all of them and takes the strictest answer; between two refusals, that
//! of the filter installed last. So the list of what is allowed goes first, and the refusals with an answer of their
//! own after it. Calls by another architecture's convention (i386) end the process; x32 numbers are nobody's and get
//! the policy's `otherwise`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use rustix::io::Errno;
use seccompiler::{TargetArch, compile_from_json, sock_filter};
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
    COMPILED
        .get_or_init(|| compile(std::env::consts::ARCH))
        .as_deref()
        .map_err(Clone::clone)
}

fn compile(architecture: &str) -> Result<Vec<BpfProgram>, PolicyError> {
    let policy: Policy =
        serde_json::from_str(POLICY).map_err(|error| PolicyError(error.to_string()))?;
    let here = |wanted: &Option<String>| wanted.as_deref().is_none_or(|name| name == architecture);
    let allowed: Vec<Value> = policy
        .allow
        .iter()
        .filter(|group| here(&group.architecture))
        .flat_map(|group| {
            group
                .calls
                .iter()
                .map(|call| rule(call, &group.reason, &[]))
        })
        .collect();
    let mut refused: BTreeMap<Answer, Vec<Value>> = BTreeMap::new();
    for group in policy
        .refuse
        .iter()
        .filter(|group| here(&group.architecture))
    {
        if group.answer == policy.otherwise && group.when.is_empty() {
            // What is not allowed gets this answer anyway; the group stands for its reason.
            continue;
        }
        let rules = refused.entry(group.answer).or_default();
        for call in &group.calls {
            if group.when.is_empty() {
                rules.push(rule(call, &group.reason, &[]));
            }
            for alternative in &group.when {
                rules.push(rule(call, &group.reason, alternative));
            }
        }
    }
    let first = json!({
        "mismatch_action": { "errno": policy.otherwise.errno() },
        "match_action": "allow",
        "filter": allowed,
    });
    let others = refused.into_iter().map(|(answer, rules)| {
        json!({
            "mismatch_action": "allow",
            "match_action": { "errno": answer.errno() },
            "filter": rules,
        })
    });
    std::iter::once(first)
        .chain(others)
        .map(|filter| program(&filter, architecture))
        .collect()
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

fn program(filter: &Value, architecture: &str) -> Result<BpfProgram, PolicyError> {
    let target =
        TargetArch::try_from(architecture).map_err(|error| PolicyError(error.to_string()))?;
    let text = json!({ "container": filter }).to_string();
    let mut compiled = compile_from_json(text.as_bytes(), target)
        .map_err(|error| PolicyError(error.to_string()))?;
    let instructions = compiled
        .remove("container")
        .ok_or_else(|| PolicyError("the compiler lost the filter".to_owned()))?;
    Ok(BpfProgram(instructions.iter().map(pack).collect()))
}

fn pack(instruction: &sock_filter) -> u64 {
    u64::from(instruction.code) << 48
        | u64::from(instruction.jt) << 40
        | u64::from(instruction.jf) << 32
        | u64::from(instruction.k)
}

fn unpack(packed: u64) -> sock_filter {
    let [c0, c1, jt, jf, k0, k1, k2, k3] = packed.to_be_bytes();
    sock_filter {
        code: u16::from_be_bytes([c0, c1]),
        jt,
        jf,
        k: u32::from_be_bytes([k0, k1, k2, k3]),
    }
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
            assert_eq!(programs.len(), 4, "allowed, EPERM, EAFNOSUPPORT, done");
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
        let instruction = sock_filter {
            code: 0x1234,
            jt: 0x56,
            jf: 0x78,
            k: 0x9abc_def0,
        };
        let back = unpack(pack(&instruction));
        assert_eq!(
            (back.code, back.jt, back.jf, back.k),
            (0x1234, 0x56, 0x78, 0x9abc_def0)
        );
    }

    #[test]
    fn no_filter_is_an_error() {
        assert_eq!(install(&[]), Err(Errno::INVAL));
    }
}
