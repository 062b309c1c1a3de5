//! What this machine allows, found out by trying: the facts behind `belljar doctor`.

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

/// Whether a host that cannot limit memory and processes is acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitsNeed {
    /// No limits, no containers.
    Required,
    /// The operator has accepted it.
    BestEffort,
}

/// Tries everything a container needs.
pub fn probe(limits: LimitsNeed) -> Vec<Finding> {
    let _ = limits;
    Vec::new()
}
