//! `[limits]` and `[[workspace]]`: what workspaces may hold and use.

use belljar_store::WorkspaceId;
use serde::Deserialize;

use super::ConfigError;
use crate::tenants::limits::{AllLimits, Limits};

/// `[[workspace]]`.
#[derive(Clone, Debug, Deserialize)]
pub struct WorkspaceTable {
    name: String,
    #[serde(flatten)]
    limits: Limits,
}

/// Quotas may be 0, which lets nothing through. A rate of 0 would tell clients to come back, and never let them in.
fn checked(limits: Limits, table: &str) -> Result<Limits, ConfigError> {
    let rates = [
        ("requests_per_minute_max", limits.requests_per_minute_max),
        ("input_tokens_per_minute_max", limits.input_tokens_per_minute_max),
        ("output_tokens_per_minute_max", limits.output_tokens_per_minute_max),
    ];
    match rates.iter().find(|(_, rate)| *rate == Some(0)) {
        Some((name, _)) => Err(ConfigError(format!("{table}.{name}: must be greater than 0"))),
        None => Ok(limits),
    }
}

/// Both, resolved: a named workspace has what its table says, and what holds for all where that says nothing.
pub fn resolve(all: Limits, named: &[WorkspaceTable]) -> Result<AllLimits, ConfigError> {
    let others = checked(all, "limits")?;
    let mut limits = AllLimits { others, ..AllLimits::default() };
    for (index, WorkspaceTable { name, limits: own }) in named.iter().enumerate() {
        let table = format!("workspace[{index}]");
        let workspace = WorkspaceId::named(name).map_err(|error| ConfigError(format!("{table}.name: {error}")))?;
        if limits.named.insert(workspace, checked(*own, &table)?.or(others)).is_some() {
            return Err(ConfigError(format!("{table}.name: \"{name}\" has a table already")));
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::super::file::ConfigFile;
    use super::*;

    #[test]
    fn a_workspace_has_its_own_limits_and_those_of_all() {
        let text = "[limits]\nfiles_max = 9\ncontainers_max = 2\n[[workspace]]\nname = \"acme\"\nfiles_max = 5\nexecutions_per_day_max = 0";
        let limits = ConfigFile::parse(text).and_then(|file| file.all_limits()).expect("it is right");
        let [acme, other] = ["acme", "other"].map(|name| limits.of(&WorkspaceId::named(name).expect("a name")));
        assert_eq!((acme.files_max, acme.containers_max, acme.executions_per_day_max), (Some(5), Some(2), Some(0)));
        assert_eq!((other.files_max, other.containers_max, other.executions_per_day_max), (Some(9), Some(2), None));
        let scope = WorkspaceId::named("acme").expect("a name").scope_of(&"ann".parse().expect("a user"));
        assert_eq!(limits.of(&scope), acme);
    }

    #[test]
    fn what_cannot_hold_is_refused_with_its_key() {
        let cases = [
            ("[limits]\nrequests_per_minute_max = 0", "limits.requests_per_minute_max: must be greater than 0"),
            (
                "[[workspace]]\nname = \"a.b\"",
                "workspace[0].name: a workspace is named by 1 to 128 of the characters A-Z a-z 0-9 _ -",
            ),
            (
                "[[workspace]]\nname = \"a\"\n[[workspace]]\nname = \"a\"",
                "workspace[1].name: \"a\" has a table already",
            ),
            (
                "[[workspace]]\nname = \"a\"\nfile_max = 1",
                "unknown key `workspace.file_max`; did you mean `files_max`?",
            ),
        ];
        for (text, expected) in cases {
            let found =
                ConfigFile::parse(text).and_then(|file| file.all_limits()).map(drop).map_err(|error| error.to_string());
            assert_eq!(found, Err(expected.to_owned()), "{text}");
        }
    }
}
