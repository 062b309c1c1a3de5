//! Statements about the store as a whole: which one it is, and whose turn it is.

use super::sql::{Connection, OptionalExtension as _, Transaction};
use crate::StoreError;

/// The store's id. Made up on first use.
pub(crate) fn identity(change: &Transaction<'_>, new: &str) -> Result<String, StoreError> {
    let known = change.query_row("SELECT id FROM store", (), |row| row.get("id")).optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    change.execute("INSERT INTO store (id) VALUES (?1)", [new])?;
    Ok(new.to_owned())
}

/// The store's id, if it has one yet.
pub(crate) fn known_identity(connection: &Connection) -> Result<Option<String>, StoreError> {
    Ok(connection.query_row("SELECT id FROM store", (), |row| row.get("id")).optional()?)
}

/// Counts on: from now on the store is this process's, until another one counts on. Only for a store whose lock is part of its
/// database; see [`super::sql::Postgres`].
pub(crate) fn begin_tenure(connection: &mut Connection) -> Result<(), StoreError> {
    if connection.postgres().is_none() {
        return Ok(());
    }
    let change = connection.begin()?;
    let tenure =
        change.query_row("UPDATE store SET tenure = tenure + 1 RETURNING tenure", (), |row| row.get("tenure"))?;
    change.commit()?;
    if let Some(postgres) = connection.postgres() {
        postgres.begin_tenure(tenure);
    }
    Ok(())
}
