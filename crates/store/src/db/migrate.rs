//! Bringing the schema up to date.

use crate::{StoreError, Timestamp};
use rusqlite::{Connection, OptionalExtension as _};

/// Every change to the schema, in order; the first makes schema 1. Never edited once released.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_files_containers_keys", include_str!("migrations/0001_files_containers_keys.sql")),
    ("0002_checkpoints", include_str!("migrations/0002_checkpoints.sql")),
    ("0003_key_isolation", include_str!("migrations/0003_key_isolation.sql")),
    ("0004_batches", include_str!("migrations/0004_batches.sql")),
    ("0005_checkpoint_isolation", include_str!("migrations/0005_checkpoint_isolation.sql")),
    ("0006_tenants", include_str!("migrations/0006_tenants.sql")),
    ("0007_usage", include_str!("migrations/0007_usage.sql")),
    ("0008_named_checkpoints", include_str!("migrations/0008_named_checkpoints.sql")),
];

fn latest() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// The schema the database has; 0 for a new one. Refuses one that a later program made.
fn version(connection: &Connection) -> Result<u32, StoreError> {
    let made = connection
        .query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'migrations'", [], |_| Ok(()))
        .optional()?;
    if made.is_none() {
        return Ok(0);
    }
    let found: u32 = connection.query_row("SELECT coalesce(max(version), 0) FROM migrations", [], |row| row.get(0))?;
    if found > latest() {
        return Err(StoreError::NewerSchema { found, known: latest() });
    }
    Ok(found)
}

/// Whether the schema is this program's.
pub(super) fn is_current(connection: &Connection) -> Result<bool, StoreError> {
    Ok(version(connection)? == latest())
}

/// Applies what is missing, all of it or nothing.
pub(super) fn migrate(connection: &mut Connection, now: Timestamp) -> Result<(), StoreError> {
    if is_current(connection)? {
        return Ok(());
    }
    let change = super::begin(connection)?;
    change.execute_batch(
        "CREATE TABLE IF NOT EXISTS migrations (
           version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL
         ) STRICT",
    )?;
    let found = version(&change)?;
    for (number, (name, sql)) in (1_u32..).zip(MIGRATIONS) {
        if number > found {
            change.execute_batch(sql)?;
            change.execute(
                "INSERT INTO migrations (version, name, applied_at) VALUES (?1, ?2, ?3)",
                (number, name, now.to_string()),
            )?;
        }
    }
    change.commit()?;
    Ok(())
}
