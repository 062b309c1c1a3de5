//! What the fuzz targets (`fuzz/`) see of this crate: the plan's reader, and the seccomp compiler held against its policy.

use crate::plan::JailPlan;
use crate::seccomp::judge::{Call, answer, audit_architecture, expected};
use crate::seccomp::policy::{Policy, numbers};
use crate::seccomp::{compile, compiled};

/// The plan in these bytes, written again; none when they are no plan.
pub fn rewritten_plan(bytes: &[u8]) -> Option<Vec<u8>> {
    let plan: JailPlan = serde_json::from_slice(bytes).ok()?;
    serde_json::to_vec(&plan).ok()
}

/// Compiles a policy and asks both the filters and the policy about a call: (what the filters answer, what the policy
/// lets them answer). None when the policy is refused.
pub fn judged(policy: &str, architecture: &str, call: u16, arguments: [u64; 6]) -> Option<(u32, Vec<u32>)> {
    let policy = Policy::parse(policy).ok()?;
    let filters = compile(&policy, architecture).ok()?;
    let names = numbers(architecture).ok()?;
    let name = names.iter().find(|(_, number)| **number == u32::from(call)).map(|(name, _)| name.as_str());
    let call = Call { architecture: audit_architecture(architecture), number: call.into(), arguments };
    Some((answer(&filters, &call), expected(&policy, architecture, name, &arguments)))
}

/// The names of an architecture's calls.
pub fn call_names(architecture: &str) -> Vec<&'static str> {
    let names = numbers(architecture).map(|names| names.keys().map(String::as_str).collect());
    names.unwrap_or_default()
}

/// Whether the policy that containers get can be used here.
pub fn embedded_policy_works() -> bool {
    compiled().is_ok()
}
