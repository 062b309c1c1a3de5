//! What the operator lets each workspace hold and use.

use std::collections::HashMap;

use belljar_store::{FileQuota, WorkspaceId};
use serde::Deserialize;

/// The limits of one workspace, its end users together, as `[limits]` and `[[workspace]]` say them; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Files.
    pub files_max: Option<u64>,
    /// Bytes of all files together.
    pub files_bytes_max: Option<u64>,
    /// Live containers.
    pub containers_max: Option<u64>,
    /// Cells and commands in a day of UTC.
    pub executions_per_day_max: Option<u64>,
    /// Tokens in and out in a day of UTC.
    pub tokens_per_day_max: Option<u64>,
    /// Requests in a minute.
    pub requests_per_minute_max: Option<u64>,
    /// Tokens in, in a minute.
    pub input_tokens_per_minute_max: Option<u64>,
    /// Tokens out, in a minute.
    pub output_tokens_per_minute_max: Option<u64>,
}

impl Limits {
    /// These, and where they say nothing, what holds for all.
    #[must_use]
    pub fn or(self, all: Self) -> Self {
        Self {
            files_max: self.files_max.or(all.files_max),
            files_bytes_max: self.files_bytes_max.or(all.files_bytes_max),
            containers_max: self.containers_max.or(all.containers_max),
            executions_per_day_max: self.executions_per_day_max.or(all.executions_per_day_max),
            tokens_per_day_max: self.tokens_per_day_max.or(all.tokens_per_day_max),
            requests_per_minute_max: self.requests_per_minute_max.or(all.requests_per_minute_max),
            input_tokens_per_minute_max: self.input_tokens_per_minute_max.or(all.input_tokens_per_minute_max),
            output_tokens_per_minute_max: self.output_tokens_per_minute_max.or(all.output_tokens_per_minute_max),
        }
    }
}

/// The limits of every workspace.
#[derive(Clone, Debug, Default)]
pub struct AllLimits {
    /// Of workspaces that nothing is said about.
    pub others: Limits,
    /// Of the named ones, complete.
    pub named: HashMap<WorkspaceId, Limits>,
}

impl AllLimits {
    /// What holds for a workspace, or for the one that a scope is part of.
    pub fn of(&self, workspace: &WorkspaceId) -> Limits {
        self.named.get(&workspace.whole()).copied().unwrap_or(self.others)
    }

    /// What the store is to know of it. `bytes_max` holds where nothing else is said.
    pub fn file_quotas(&self, bytes_max: u64) -> (FileQuota, HashMap<WorkspaceId, FileQuota>) {
        let quota = |limits: &Limits| FileQuota {
            bytes_max: limits.files_bytes_max.unwrap_or(bytes_max),
            files_max: limits.files_max,
        };
        let named = self.named.iter().map(|(workspace, limits)| (workspace.clone(), quota(limits)));
        (quota(&self.others), named.collect())
    }
}
