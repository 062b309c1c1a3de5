//! The keys of a data directory, for a command beside a running server.

use crate::data_dir::DataDir;
use crate::db::{self, Connected, Connection, Role};
use crate::{Clock, Database, Day, Holding, KeyDraft, KeyRecord, StoreError};
use belljar_ids::KeyId;
use std::path::Path;
use std::sync::Arc;

/// The keys alone, without holding the data directory: `belljar keys` works while a server runs, and the
/// server sees the change with its next request. Blocking; not for use inside a runtime.
pub struct KeyRing {
    connection: Connection,
    clock: Arc<dyn Clock>,
}

impl KeyRing {
    /// Opens the keys of the store in `data_dir`, or of its `database`, making it if need be.
    ///
    /// # Errors
    /// [`StoreError::Locked`] and [`StoreError::Held`] when the database must be brought up to date and a server runs on it.
    pub fn open(data_dir: &Path, database: &Database, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let dir = DataDir::prepare(data_dir)?;
        let place = database.place(&dir);
        if let db::Place::Postgres(_) = place {
            // A connection that holds the store for a moment brings it up to date.
            let (now, beside) = (clock.now(), || db::connect(&place, Role::Beside, clock.now()));
            let connection = match beside()? {
                Connected::Ready(connection) => connection,
                Connected::Outdated => {
                    drop(db::connect(&place, Role::Serve, now)?);
                    ready(beside()?)?
                }
            };
            return Ok(Self { connection, clock });
        }
        // Held only while the schema may change.
        let (held, role) = match dir.lock() {
            Ok(lock) => (Ok(lock), Role::Serve),
            Err(locked @ StoreError::Locked { .. }) => (Err(locked), Role::Beside),
            Err(error) => return Err(error),
        };
        match (db::connect(&place, role, clock.now())?, held) {
            (Connected::Ready(connection), _) => Ok(Self { connection, clock }),
            (Connected::Outdated, Err(locked)) => Err(locked),
            (outdated @ Connected::Outdated, Ok(_)) => Ok(Self { connection: ready(outdated)?, clock }),
        }
    }

    /// Keeps a new key's hash.
    pub fn create(&mut self, draft: KeyDraft) -> Result<KeyRecord, StoreError> {
        let change = db::begin(&mut self.connection)?;
        let record = db::keys::insert(&change, draft, self.clock.now())?;
        change.commit()?;
        Ok(record)
    }

    /// All keys, oldest first, revoked ones too.
    pub fn list(&self) -> Result<Vec<KeyRecord>, StoreError> {
        db::keys::list(&self.connection)
    }

    /// What every workspace and every end user holds, and has used today.
    pub fn holdings(&self) -> Result<Vec<Holding>, StoreError> {
        db::tenants::holdings(&self.connection, Day::of(self.clock.now()))
    }

    /// Ends a key for good; `false` when there is none or it has ended already.
    pub fn revoke(&mut self, id: &KeyId) -> Result<bool, StoreError> {
        let change = db::begin(&mut self.connection)?;
        let revoked = db::keys::revoke(&change, id, self.clock.now())?;
        change.commit()?;
        Ok(revoked)
    }
}

/// After the schema was brought up to date.
pub(crate) fn ready(connected: Connected) -> Result<Connection, StoreError> {
    match connected {
        Connected::Ready(connection) => Ok(connection),
        Connected::Outdated => Err(StoreError::broken("bringing the database up to date", "it is still outdated")),
    }
}
