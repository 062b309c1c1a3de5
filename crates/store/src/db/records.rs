//! Statements for whoever keeps an eye on all workspaces.

use super::sql::{Connection, OptionalExtension as _, Row};
use super::tenants::ALL_OF_IT;
use super::{parsed, unsigned};
use crate::{Day, Spending, StoreError, Timestamp, UserId, WorkspaceId};

/// A workspace, or an end user's part of one.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) workspace: WorkspaceId,
    pub(crate) user: Option<UserId>,
}

fn part(row: &Row<'_>) -> rusqlite::Result<Part> {
    let user: Option<String> = row.get("user_id")?;
    let user = user.map(|_| parsed(row, "user_id")).transpose()?;
    Ok(Part { workspace: parsed(row, "workspace")?, user })
}

/// Up to `limit` parts that have ever had anything, by name, from behind one on; all of them, or those of one workspace.
pub(crate) fn parts_after(
    connection: &Connection,
    of: Option<&WorkspaceId>,
    after: &str,
    limit: u32,
) -> Result<Vec<Part>, StoreError> {
    let known = "SELECT w.workspace AS workspace, s.user_id AS user_id
                 FROM workspaces w LEFT JOIN scopes s ON s.scope = w.workspace WHERE w.workspace > ?1";
    let found = match of {
        None => connection
            .prepare_cached(&format!("{known} ORDER BY w.workspace LIMIT ?2"))?
            .query_map((after, limit), part)?
            .collect::<Result<_, _>>(),
        Some(of) => connection
            .prepare_cached(&format!(
                "{known} AND (w.workspace = ?3 OR s.workspace = ?3) ORDER BY w.workspace LIMIT ?2"
            ))?
            .query_map((after, limit, of.as_str()), part)?
            .collect::<Result<_, _>>(),
    };
    Ok(found?)
}

/// Up to `limit` whole workspaces that hold or have used anything, by name, from behind one on.
pub(crate) fn wholes_after(connection: &Connection, after: &str, limit: u32) -> Result<Vec<WorkspaceId>, StoreError> {
    let name = connection.choose("workspace", "workspace COLLATE \"C\"");
    let sql = format!(
        "SELECT workspace FROM (
           SELECT {name} AS workspace FROM holdings UNION SELECT {name} AS workspace FROM usage_by_day
           UNION SELECT {name} AS workspace FROM scopes UNION SELECT {name} AS workspace FROM keys
           UNION SELECT {name} AS workspace FROM workspaces WHERE workspace NOT LIKE '%.%'
         ) AS known WHERE {name} > ?1 ORDER BY {name} LIMIT ?2"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_map((after, limit), |row| parsed(row, "workspace"))?.collect::<Result<_, _>>()?)
}

/// Containers of a whole workspace that have not ended.
pub(crate) fn containers_going(
    connection: &Connection,
    whole: &WorkspaceId,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let sql = format!("SELECT count(*) AS containers FROM containers WHERE {ALL_OF_IT} AND expires_at_us > ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row((whole.as_str(), now.as_micros()), |row| unsigned(row, "containers"))?)
}

/// What a whole workspace has used on each day since one, the last first.
pub(crate) fn days_since(
    connection: &Connection,
    whole: &WorkspaceId,
    since: Day,
) -> Result<Vec<(Day, Spending)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT day, executions, tokens FROM usage_by_day WHERE workspace = ?1 AND day >= ?2 ORDER BY day DESC",
    )?;
    let read = |row: &Row<'_>| {
        let spent = Spending { executions: unsigned(row, "executions")?, tokens: unsigned(row, "tokens")? };
        Ok((Day::from_number(row.get("day")?), spent))
    };
    Ok(statement.query_map((whole.as_str(), since.number()), read)?.collect::<Result<_, _>>()?)
}

/// Whose container this is.
pub(crate) fn owner_of_container(connection: &Connection, id: &str) -> Result<Option<Part>, StoreError> {
    owner(connection, "containers", id)
}

/// Whose file this is.
pub(crate) fn owner_of_file(connection: &Connection, id: &str) -> Result<Option<Part>, StoreError> {
    owner(connection, "files", id)
}

fn owner(connection: &Connection, table: &'static str, id: &str) -> Result<Option<Part>, StoreError> {
    let sql = format!(
        "SELECT t.workspace AS workspace, s.user_id AS user_id
         FROM {table} t LEFT JOIN scopes s ON s.scope = t.workspace WHERE t.id = ?1"
    );
    Ok(connection.prepare_cached(&sql)?.query_row([id], part).optional()?)
}
