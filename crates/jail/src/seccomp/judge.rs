//! What filters answer, by running them as the kernel does; and what the policy says they should answer. Tests and fuzz
//! targets hold the two against each other.

use super::policy::{Condition, Policy, Test, Width};
use super::{Filters, JUMP, JUMP_IF_AT_LEAST, JUMP_IF_EQUAL, RET_ALLOW, RETURN, as_return, unpack};
use crate::plan::BpfProgram;

/// `linux/audit.h`, as `std::env::consts::ARCH` names the architectures.
pub(crate) fn audit_architecture(architecture: &str) -> u32 {
    match architecture {
        "x86_64" => 0xc000_003e,
        _ => 0xc000_00b7,
    }
}

/// One system call, as a filter sees it (`struct seccomp_data`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) architecture: u32,
    pub(crate) number: u32,
    pub(crate) arguments: [u64; 6],
}

/// The stricter answer of the two; among equals, of the one installed last (`seccomp(2)`).
///
/// # Panics
/// On an instruction that filters have no use for, and on a program that does not return.
pub(crate) fn answer(filters: &Filters, call: &Call) -> u32 {
    const ACTION_FULL: u32 = 0xffff_0000;
    let strictness = |answer: u32| (answer & ACTION_FULL).cast_signed();
    let [last, first] = [&filters.last, &filters.first].map(|program| run(program, call));
    if strictness(first) < strictness(last) { first } else { last }
}

/// `BPF` as `seccomp(2)` has it: words of [`Call`] are loaded, compared and masked.
pub(crate) fn run(program: &BpfProgram, call: &Call) -> u32 {
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let instruction = unpack(program.0[at]);
        at += 1;
        let k = instruction.k;
        let mut jump = |taken: bool| at += usize::from(if taken { instruction.jt } else { instruction.jf });
        match instruction.code {
            0x20 => accumulator = word(call, k),
            0x54 => accumulator &= k,
            JUMP => at += usize::try_from(k).unwrap_or(usize::MAX),
            JUMP_IF_EQUAL => jump(accumulator == k),
            JUMP_IF_AT_LEAST => jump(accumulator >= k),
            0x25 => jump(accumulator > k),
            0x45 => jump(accumulator & k != 0),
            RETURN => return k,
            code => panic!("instruction {code:#x}"),
        }
    }
}

/// The word at this offset of `struct seccomp_data`; both architectures are little-endian.
fn word(call: &Call, offset: u32) -> u32 {
    let half = |argument: u64, high: bool| u32::try_from(if high { argument >> 32 } else { argument & 0xffff_ffff });
    match offset {
        0 => call.number,
        4 => call.architecture,
        16..64 => {
            let index = usize::try_from((offset - 16) / 8).expect("small");
            half(call.arguments[index], offset % 8 == 4).expect("a half")
        }
        other => panic!("a load from {other}"),
    }
}

/// What the policy says of a call of this architecture: the answers that may come, the strictest by the order of
/// installation first. More than one only where alternatives of different groups hold at once.
pub(crate) fn expected(policy: &Policy, architecture: &str, name: Option<&str>, arguments: &[u64; 6]) -> Vec<u32> {
    let Some(name) = name else { return vec![as_return(policy.otherwise)] };
    let named = |calls: &[String]| calls.iter().any(|call| call == name);
    let refusals: Vec<u32> = policy
        .refused(architecture)
        .filter(|group| named(&group.calls))
        .filter(|group| {
            let holds = |conditions: &Vec<Condition>| conditions.iter().all(|condition| holds(condition, arguments));
            group.when.is_empty() || group.when.iter().any(holds)
        })
        .map(|group| as_return(group.answer))
        .collect();
    if !refusals.is_empty() {
        return refusals;
    }
    let allowed = policy.allowed(architecture).any(|group| named(&group.calls));
    vec![if allowed { RET_ALLOW } else { as_return(policy.otherwise) }]
}

fn holds(condition: &Condition, arguments: &[u64; 6]) -> bool {
    let cut = |value: u64| match condition.width {
        Width::Dword => value & 0xffff_ffff,
        Width::Qword => value,
    };
    let argument = cut(arguments[usize::from(condition.argument)]);
    match condition.test {
        Test::HasBits(bits) => argument & cut(bits) == cut(bits),
        Test::Is(value) => argument == cut(value),
        Test::IsNot(value) => argument != cut(value),
    }
}
