//! What this machine allows, found out by trying: the facts behind `belljar doctor`.

mod facts;
mod trial;

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Works, with less than there could be.
    Warn,
    /// Containers would not start.
    Refused,
}

/// One fact about this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Short stable name, `snake_case`.
    pub name: &'static str,
    /// How bad.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), advice: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status: Status::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn refused(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Refused, ..Self::warn(name, found, advice) }
    }
}

/// Whether a host that cannot limit memory and processes is acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitsNeed {
    /// No limits, no containers.
    Required,
    /// The operator has accepted it.
    BestEffort,
}

/// Tries everything a container needs: looks at the machine, then starts one container on an empty root file system
/// and ends it. Blocks for some milliseconds.
///
/// Like [`crate::cgroup::CgroupTree::detect`], it may move this process into a leaf of its own v2 cgroup.
pub fn probe(limits: LimitsNeed) -> Vec<Finding> {
    let mut findings = vec![facts::kernel(), facts::architecture(), facts::privileges(), facts::openat2()];
    findings.extend(trial::container());
    findings.push(facts::landlock());
    findings.extend(facts::cgroups(limits));
    findings.push(facts::erofs());
    findings.push(facts::kvm());
    findings
}
