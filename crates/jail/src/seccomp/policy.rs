//! The policy as it is written: groups of calls, each with its reason, and the numbers that the calls have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;

const POLICY: &str = include_str!("../../policy/seccomp.json");
const CALLS: &str = include_str!("../../policy/calls.json");

/// What a refused call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) enum Answer {
    #[serde(rename = "EPERM")]
    NotPermitted,
    #[serde(rename = "ENOSYS")]
    NoSuchCall,
    #[serde(rename = "EINVAL")]
    NoSuchOption,
    #[serde(rename = "EAFNOSUPPORT")]
    NoSuchFamily,
    /// Success, without anything having been done.
    #[serde(rename = "done")]
    Done,
}

impl Answer {
    pub(crate) fn errno(self) -> i32 {
        match self {
            Self::NotPermitted => libc::EPERM,
            Self::NoSuchCall => libc::ENOSYS,
            Self::NoSuchOption => libc::EINVAL,
            Self::NoSuchFamily => libc::EAFNOSUPPORT,
            Self::Done => 0,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    /// For every number that no group names: calls of kernels to come, and x32.
    pub(crate) otherwise: Answer,
    /// Refused calls that set-up makes between the first filter and the last, which refuses them.
    #[serde(default)]
    pub(crate) setup: Vec<String>,
    allow: Vec<Allow>,
    refuse: Vec<Refuse>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Allow {
    pub(crate) reason: String,
    pub(crate) architecture: Option<String>,
    pub(crate) calls: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refuse {
    pub(crate) reason: String,
    pub(crate) architecture: Option<String>,
    pub(crate) answer: Answer,
    pub(crate) calls: Vec<String>,
    /// Alternatives, each of conditions that must all hold; no alternative means always.
    #[serde(default)]
    pub(crate) when: Vec<Vec<Condition>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Condition {
    pub(crate) argument: u8,
    pub(crate) width: Width,
    pub(crate) test: Test,
    pub(crate) means: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Width {
    Dword,
    Qword,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Test {
    HasBits(u64),
    Is(u64),
    IsNot(u64),
}

/// Why a policy is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PolicyError(pub(crate) String);

impl Policy {
    /// The one that containers get.
    pub(crate) fn embedded() -> Result<Self, PolicyError> {
        Self::parse(POLICY)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, PolicyError> {
        serde_json::from_str(text).map_err(|error| PolicyError(error.to_string()))
    }

    /// Every group has its reason, every alternative its condition, and every call its one place: allowed, refused, or
    /// allowed and refused under conditions. What set-up needs is refused to all others.
    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        let reasons = self.allow.iter().map(|group| &group.reason);
        if reasons.chain(self.refuse.iter().map(|group| &group.reason)).any(String::is_empty) {
            return Err(PolicyError("a group has no reason".to_owned()));
        }
        // It would always hold, but beside another of the same call the compiler drops it, and the call is let through.
        if self.refuse.iter().flat_map(|group| &group.when).any(Vec::is_empty) {
            return Err(PolicyError("an alternative has no condition".to_owned()));
        }
        let mut allowed = BTreeSet::new();
        for call in self.allow.iter().flat_map(|group| &group.calls) {
            if !allowed.insert(call) {
                return Err(PolicyError(format!("{call} is allowed twice")));
            }
        }
        let mut refused = BTreeSet::new();
        for group in &self.refuse {
            for call in &group.calls {
                if !refused.insert(call) {
                    return Err(PolicyError(format!("{call} is refused twice")));
                }
                if allowed.contains(call) == group.when.is_empty() {
                    let what = "must be refused under conditions if and only if it is allowed otherwise";
                    return Err(PolicyError(format!("{call} {what}")));
                }
            }
        }
        match self.setup.iter().find(|call| allowed.contains(call) || !refused.contains(call)) {
            Some(call) => Err(PolicyError(format!("{call}, which set-up needs, must be refused"))),
            None => Ok(()),
        }
    }

    pub(crate) fn allowed(&self, architecture: &str) -> impl Iterator<Item = &Allow> {
        self.allow.iter().filter(move |group| here(&group.architecture, architecture))
    }

    pub(crate) fn refused(&self, architecture: &str) -> impl Iterator<Item = &Refuse> {
        self.refuse.iter().filter(move |group| here(&group.architecture, architecture))
    }
}

fn here(wanted: &Option<String>, architecture: &str) -> bool {
    wanted.as_deref().is_none_or(|name| name == architecture)
}

/// Every call of an architecture with its number (`asm/unistd.h` of Linux 6.18).
pub(crate) fn numbers(architecture: &str) -> Result<&'static BTreeMap<String, u32>, PolicyError> {
    type Tables = BTreeMap<String, BTreeMap<String, u32>>;
    static TABLES: LazyLock<Result<Tables, String>> =
        LazyLock::new(|| serde_json::from_str(CALLS).map_err(|error| error.to_string()));
    let tables = TABLES.as_ref().map_err(|error| PolicyError(error.clone()))?;
    tables.get(architecture).ok_or_else(|| PolicyError(format!("no table of calls for {architecture}")))
}
