//! Bringing the schema up to date.

use super::sql::{Connection, OptionalExtension as _};
use crate::{StoreError, Timestamp};

struct Migration {
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! migrations {
    ($($name:literal),+ $(,)?) => {
        &[$(Migration {
            name: $name,
            sqlite: include_str!(concat!("migrations/", $name, ".sql")),
            postgres: include_str!(concat!("migrations/postgres/", $name, ".sql")),
        }),+]
    };
}

/// Every change to the schema, in order; the first makes schema 1. Never edited once released.
const MIGRATIONS: &[Migration] = migrations![
    "0001_files_containers_keys",
    "0002_checkpoints",
    "0003_key_isolation",
    "0004_batches",
    "0005_checkpoint_isolation",
    "0006_tenants",
    "0007_usage",
    "0008_named_checkpoints",
    "0010_store_and_objects",
    "0011_deleted_batches",
];

pub(super) fn latest() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// The schema the database has; 0 for a new one. Refuses one that a later program made.
pub(super) fn version(connection: &Connection) -> Result<u32, StoreError> {
    let known = connection.choose(
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'migrations'",
        "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = current_schema() AND tablename = 'migrations'",
    );
    let made = connection.query_row(known, (), |_| Ok(())).optional()?;
    if made.is_none() {
        return Ok(0);
    }
    let found: u32 = connection.query_row("SELECT coalesce(max(version), 0) FROM migrations", (), |row| row.get(0))?;
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
    change.execute_batch(change.choose(
        "CREATE TABLE IF NOT EXISTS migrations (
           version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL
         ) STRICT",
        "CREATE TABLE IF NOT EXISTS migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL)",
    ))?;
    let found = version(&change)?;
    for (number, migration) in (1_u32..).zip(MIGRATIONS) {
        if number > found {
            change.execute_batch(change.choose(migration.sqlite, migration.postgres))?;
            change.execute(
                "INSERT INTO migrations (version, name, applied_at) VALUES (?1, ?2, ?3)",
                (number, migration.name, now.to_string()),
            )?;
        }
    }
    change.commit()?;
    Ok(())
}
