//! Where metadata is kept.

use crate::data_dir::DataDir;
use crate::writer::blocking;
use crate::{StoreError, db};

/// Where metadata is kept.
#[derive(Clone, Debug, Default)]
pub enum Database {
    /// In the data directory, by SQLite.
    #[default]
    Sqlite,
    /// In a PostgreSQL.
    Postgres(PostgresPlace),
}

/// A database of a PostgreSQL, and how to reach it. Shown without its password.
#[derive(Clone, Debug)]
pub struct PostgresPlace(Box<postgres::Config>);

impl std::fmt::Display for PostgresPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PostgreSQL at {}", db::place(&self.0))
    }
}

impl PostgresPlace {
    /// Reads `postgres://user@host:port/name?sslmode=...`, or `key=value` pairs as libpq takes them.
    ///
    /// # Errors
    /// [`StoreError::Misconfigured`], without the text: it may have a password in it.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        match url.parse::<postgres::Config>() {
            Ok(config) if config.get_hosts().is_empty() => {
                Err(StoreError::Misconfigured { what: "the database's address names no host".to_owned() })
            }
            Ok(config) => Ok(Self(Box::new(config))),
            Err(error) => {
                let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                Err(StoreError::Misconfigured { what: format!("the database's address cannot be read: {why}") })
            }
        }
    }

    pub(crate) fn config(&self) -> Box<postgres::Config> {
        self.0.clone()
    }

    /// Whether the address carries a password.
    pub fn has_password(&self) -> bool {
        self.0.get_password().is_some()
    }

    /// The same with a password.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.0.password(password);
        self
    }
}

impl std::fmt::Display for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite => f.write_str("the data directory"),
            Self::Postgres(place) => place.fmt(f),
        }
    }
}

impl Database {
    /// Asks the database who it is, and changes nothing; none for the one that is a file of ours.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`].
    pub async fn reach(&self) -> Result<Option<String>, StoreError> {
        match self {
            Self::Sqlite => Ok(None),
            Self::Postgres(place) => {
                let config = place.0.clone();
                blocking(move || db::version(&config)).await.map(Some)
            }
        }
    }

    pub(crate) fn place(&self, dir: &DataDir) -> db::Place {
        match self {
            Self::Sqlite => db::Place::Sqlite(dir.database()),
            Self::Postgres(place) => db::Place::Postgres(place.0.clone()),
        }
    }
}
