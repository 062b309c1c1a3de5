//! One face for both databases, shaped like the one SQLite's library has.
//!
//! Statements are written once. Parameters are `?1`, `?2`; for PostgreSQL they become `$1`, `$2`, so no statement may
//! have a question mark before a digit in a literal. What both take: `ON CONFLICT`, `RETURNING`, row values, partial
//! indexes. What they do not share, and how it is written here: a column named on both sides of `DO UPDATE` carries its
//! table's name; sums are `CAST(... AS BIGINT)`; upserts are `ON CONFLICT`, never `INSERT OR REPLACE`; tables that are sorted
//! by text have it `COLLATE "C"` in PostgreSQL. Values are SQLite's: whole numbers of 64 bits, text, bytes.

mod error;
mod postgres;
mod values;

pub(crate) use error::{Error, OptionalExtension, Result};
pub(crate) use postgres::{Hold, Postgres, place};
pub(crate) use values::{Parameters, Row};

use rusqlite::TransactionBehavior;
use std::ops::ControlFlow;

/// A connection to either database; owned by one thread.
pub(crate) struct Connection {
    engine: Engine,
}

enum Engine {
    Sqlite(rusqlite::Connection),
    Postgres(Box<Postgres>),
}

impl From<rusqlite::Connection> for Connection {
    fn from(connection: rusqlite::Connection) -> Self {
        Self { engine: Engine::Sqlite(connection) }
    }
}

impl From<Postgres> for Connection {
    fn from(connection: Postgres) -> Self {
        Self { engine: Engine::Postgres(Box::new(connection)) }
    }
}

impl Connection {
    /// The same statement text is prepared once for each connection.
    pub(crate) fn prepare_cached<'c>(&'c self, sql: &str) -> Result<Statement<'c>> {
        Ok(match &self.engine {
            Engine::Sqlite(connection) => Statement::Sqlite(connection.prepare_cached(sql)?),
            Engine::Postgres(connection) => Statement::Postgres(connection, sql.to_owned()),
        })
    }

    /// The statement's first row.
    pub(crate) fn query_row<T>(
        &self,
        sql: &str,
        parameters: impl Parameters,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.prepare_cached(sql)?.query_row(parameters, read)
    }

    /// Answers how many rows it changed.
    pub(crate) fn execute(&self, sql: &str, parameters: impl Parameters) -> Result<usize> {
        self.prepare_cached(sql)?.execute(parameters)
    }

    /// Several statements without parameters.
    pub(crate) fn execute_batch(&self, sql: &str) -> Result<()> {
        match &self.engine {
            Engine::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Engine::Postgres(connection) => connection.batch(sql),
        }
    }

    /// One moment of the database, for several statements that only read.
    pub(crate) fn snapshot(&self) -> Result<Transaction<'_>> {
        match &self.engine {
            Engine::Sqlite(connection) => {
                Ok(Transaction::Sqlite { connection: self, inner: Some(connection.unchecked_transaction()?) })
            }
            Engine::Postgres(connection) => {
                connection.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
                Ok(Transaction::Postgres { connection: self, inner: connection })
            }
        }
    }

    /// Begins a change. In SQLite `IMMEDIATE`, so that it fails at its beginning or not at all on others' account.
    pub(crate) fn begin(&mut self) -> Result<Transaction<'_>> {
        match &self.engine {
            Engine::Sqlite(connection) => {
                let inner = rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
                Ok(Transaction::Sqlite { connection: self, inner: Some(inner) })
            }
            Engine::Postgres(connection) => {
                connection.begin("BEGIN")?;
                Ok(Transaction::Postgres { connection: self, inner: connection })
            }
        }
    }

    /// Copies what this connection sees over an SQLite database that nobody else uses.
    pub(crate) fn copy_to(&self, copy: &mut rusqlite::Connection) -> Result<()> {
        match &self.engine {
            Engine::Sqlite(connection) => super::snapshot::copy(connection, copy),
            Engine::Postgres(connection) => Err(Error::Unreachable(format!("{} is no SQLite", connection.place()))),
        }
    }

    /// Which one of two wordings this database takes.
    pub(crate) fn choose<T>(&self, sqlite: T, postgres: T) -> T {
        match &self.engine {
            Engine::Sqlite(_) => sqlite,
            Engine::Postgres(_) => postgres,
        }
    }

    /// The PostgreSQL behind it, if it is one.
    pub(crate) fn postgres(&self) -> Option<&Postgres> {
        match &self.engine {
            Engine::Sqlite(_) => None,
            Engine::Postgres(connection) => Some(connection),
        }
    }
}

/// Several statements that are done as one. Undone when dropped without [`Transaction::commit`].
pub(crate) enum Transaction<'c> {
    Sqlite { connection: &'c Connection, inner: Option<rusqlite::Transaction<'c>> },
    Postgres { connection: &'c Connection, inner: &'c Postgres },
}

impl Transaction<'_> {
    /// Makes it durable. After an error of a PostgreSQL that went away it may be done or not.
    pub(crate) fn commit(mut self) -> Result<()> {
        match &mut self {
            Self::Sqlite { inner, .. } => match inner.take() {
                Some(inner) => Ok(inner.commit()?),
                None => Ok(()),
            },
            Self::Postgres { inner, .. } => inner.commit(),
        }
    }
}

impl std::ops::Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Self::Sqlite { connection, .. } | Self::Postgres { connection, .. } => connection,
        }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SQLite's undoes itself.
        if let Self::Postgres { inner, .. } = self {
            inner.undo();
        }
    }
}

/// A prepared statement.
pub(crate) enum Statement<'c> {
    Sqlite(rusqlite::CachedStatement<'c>),
    Postgres(&'c Postgres, String),
}

impl Statement<'_> {
    /// The first row, read.
    pub(crate) fn query_row<T>(
        &mut self,
        parameters: impl Parameters,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        match self {
            Self::Sqlite(statement) => Ok(statement.query_row(&*parameters.list(), |row| read(&Row::Sqlite(row)))?),
            Self::Postgres(connection, sql) => {
                let rows = connection.query(sql, &parameters.list())?;
                let row = rows.first().ok_or(rusqlite::Error::QueryReturnedNoRows)?;
                Ok(read(&Row::Postgres(row))?)
            }
        }
    }

    /// All rows, read. They are in memory together: statements that may find many have a limit.
    pub(crate) fn query_map<T>(
        &mut self,
        parameters: impl Parameters,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<std::vec::IntoIter<Result<T>>> {
        let found: Vec<Result<T>> = match self {
            Self::Sqlite(statement) => statement
                .query_map(&*parameters.list(), |row| read(&Row::Sqlite(row)))?
                .map(|row| row.map_err(Error::from))
                .collect(),
            Self::Postgres(connection, sql) => {
                let rows = connection.query(sql, &parameters.list())?;
                rows.iter().map(|row| read(&Row::Postgres(row)).map_err(Error::from)).collect()
            }
        };
        Ok(found.into_iter())
    }

    /// Rows, read until one says that it is the last wanted. SQLite reads no further; PostgreSQL has sent them all, so its
    /// statement has a limit.
    pub(crate) fn query_until<T>(
        &mut self,
        parameters: impl Parameters,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<(T, ControlFlow<()>)>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        match self {
            Self::Sqlite(statement) => {
                let mut rows = statement.query(&*parameters.list())?;
                while let Some(row) = rows.next()? {
                    let (value, flow) = read(&Row::Sqlite(row))?;
                    found.push(value);
                    if flow.is_break() {
                        break;
                    }
                }
            }
            Self::Postgres(connection, sql) => {
                for row in connection.query(sql, &parameters.list())? {
                    let (value, flow) = read(&Row::Postgres(&row))?;
                    found.push(value);
                    if flow.is_break() {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Whether there is a row.
    pub(crate) fn exists(&mut self, parameters: impl Parameters) -> Result<bool> {
        match self {
            Self::Sqlite(statement) => Ok(statement.exists(&*parameters.list())?),
            Self::Postgres(connection, sql) => Ok(!connection.query(sql, &parameters.list())?.is_empty()),
        }
    }

    /// Answers how many rows it changed.
    pub(crate) fn execute(&mut self, parameters: impl Parameters) -> Result<usize> {
        match self {
            Self::Sqlite(statement) => Ok(statement.execute(&*parameters.list())?),
            Self::Postgres(connection, sql) => connection.execute(sql, &parameters.list()),
        }
    }
}
