//! `belljar admin usage`: what quotas count, and where they end.

use std::ops::ControlFlow;

use belljar_store::{Records, Usage, WorkspaceId};
use serde_json::{Value, json};

use super::size::readable;
use super::store_failed;
use super::table::Out;
use crate::exit::Exit;
use crate::tenants::limits::Limits;

/// Writes a row for each workspace and each day on which something was counted; the first has what the workspace holds.
pub(super) fn run(
    records: &Records,
    limits: impl Fn(&WorkspaceId) -> Limits,
    of: Option<&WorkspaceId>,
    days: u32,
    mut out: Out,
) -> Result<(), Exit> {
    out.columns(["WORKSPACE", "FILES", "BYTES", "CONTAINERS", "DAY", "EXECUTIONS", "TOKENS"]);
    let mut failed = None;
    let tell = |usage: Usage| match row(&mut out, &usage, &limits(&usage.workspace)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(exit) => {
            failed = Some(exit);
            ControlFlow::Break(())
        }
    };
    records.usage(of, days, tell).map_err(store_failed)?;
    failed.map_or(Ok(()), Err)?;
    out.end()
}

fn row(out: &mut Out, usage: &Usage, limits: &Limits) -> Result<(), Exit> {
    let name = usage.workspace.as_str();
    let held = [
        of(usage.files, limits.files_max, |files| files.to_string()),
        of(usage.bytes, limits.files_bytes_max, readable),
        of(usage.containers, limits.containers_max, |containers| containers.to_string()),
    ];
    let [files, bytes, containers] = &held;
    let spent = |at: usize| {
        let Some(use_) = usage.days.get(at) else { return ["-", "-", "-"].map(str::to_owned) };
        [
            use_.day.to_string(),
            of(use_.used.executions, limits.executions_per_day_max, |count| count.to_string()),
            of(use_.used.tokens, limits.tokens_per_day_max, |count| count.to_string()),
        ]
    };
    let first = || {
        let [day, executions, tokens] = spent(0);
        [name.to_owned(), files.clone(), bytes.clone(), containers.clone(), day, executions, tokens]
    };
    out.row(first, || document(usage, limits))?;
    for at in 1..usage.days.len() {
        out.more(|| {
            let [day, executions, tokens] = spent(at);
            [name.to_owned(), String::new(), String::new(), String::new(), day, executions, tokens]
        })?;
    }
    Ok(())
}

/// `3 of 100`, or `3` where there is no limit.
fn of(count: u64, max: Option<u64>, shown: impl Fn(u64) -> String) -> String {
    match max {
        Some(max) => format!("{} of {}", shown(count), shown(max)),
        None => shown(count),
    }
}

fn document(usage: &Usage, limits: &Limits) -> Value {
    let days = usage
        .days
        .iter()
        .map(|day| json!({ "day": day.day.to_string(), "executions": day.used.executions, "tokens": day.used.tokens }));
    json!({ "workspace": usage.workspace.as_str(), "files": usage.files, "files_bytes": usage.bytes,
            "containers": usage.containers, "days": days.collect::<Vec<_>>(),
            "limits": { "files_max": limits.files_max, "files_bytes_max": limits.files_bytes_max,
                        "containers_max": limits.containers_max,
                        "executions_per_day_max": limits.executions_per_day_max,
                        "tokens_per_day_max": limits.tokens_per_day_max } })
}
