//! Looking at everything that all workspaces have.

use super::{AdminError, open_current};
use crate::db::{self, Connection, records::Part};
use crate::{
    CheckpointRecord, Clock, ContainerRecord, Database, Day, FileQuery, FileRecord, KeyRecord, NamedCheckpoint,
    PageCursor, Paged, Spending, StoreError, UserId, WorkspaceId,
};
use belljar_ids::{ContainerId, FileId, KeyId};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Rows read at once.
const PAGE_ROWS: u16 = 256;

/// The records of a store, for a command beside a running server. Changes nothing. Blocking; not for use inside a runtime.
///
/// Listings go by workspace, newest first in each, page by page: what is told may be more than fits into memory, and what is
/// made or deleted meanwhile may be told or not.
pub struct Records {
    connection: Connection,
    clock: Arc<dyn Clock>,
}

/// A container and what is kept of it.
#[derive(Debug, Clone)]
pub struct HeldContainer {
    /// The container. While it lives, its end moves in the server's memory, and is written down from time to time.
    pub record: ContainerRecord,
    /// The end user whose it is.
    pub user: Option<UserId>,
    /// Its files as they were kept last.
    pub kept: Option<CheckpointRecord>,
}

/// A file.
#[derive(Debug, Clone)]
pub struct HeldFile {
    /// The file.
    pub record: FileRecord,
    /// The end user whose it is.
    pub user: Option<UserId>,
}

/// What a whole workspace holds and has used, its end users together: what quotas count.
#[derive(Debug, Clone)]
pub struct Usage {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Files whose content is kept.
    pub files: u64,
    /// Their bytes, and those of named checkpoints.
    pub bytes: u64,
    /// Containers that have not ended, live or on disk.
    pub containers: u64,
    /// By day, the last first; only days on which something was counted.
    pub days: Vec<DayUse>,
}

/// What was used on a day, as far as a quota made somebody count.
#[derive(Debug, Clone, Copy)]
pub struct DayUse {
    /// The day.
    pub day: Day,
    /// What was used.
    pub used: Spending,
}

impl Records {
    /// Opens the records of the store in `data_dir`, or of its `database`.
    ///
    /// # Errors
    /// [`AdminError::NoStore`], [`AdminError::OlderSchema`], [`StoreError::NewerSchema`].
    pub fn open(data_dir: &Path, database: &Database, clock: Arc<dyn Clock>) -> Result<Self, AdminError> {
        Ok(Self { connection: open_current(data_dir, database)?, clock })
    }

    /// Tells every container, of all workspaces or of one, until told to stop.
    pub fn containers(
        &self,
        of: Option<&WorkspaceId>,
        mut tell: impl FnMut(HeldContainer) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let page = |workspace: &WorkspaceId, after| db::containers::list(&self.connection, workspace, after, PAGE_ROWS);
        self.walk(of, page, |record: ContainerRecord, user| {
            let kept = db::checkpoints::find(&self.connection, &record.workspace, &record.id)?;
            Ok(tell(HeldContainer { record, user, kept }))
        })
    }

    /// Tells every file, expired ones too, of all workspaces or of one, until told to stop.
    pub fn files(
        &self,
        of: Option<&WorkspaceId>,
        mut tell: impl FnMut(HeldFile) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let page = |workspace: &WorkspaceId, after| {
            db::files::list(&self.connection, workspace, &FileQuery::Page { limit: PAGE_ROWS, after })
        };
        self.walk(of, page, |record, user| Ok(tell(HeldFile { record, user })))
    }

    /// All keys, oldest first, revoked ones too. Operators make them one by one, so they are few.
    pub fn keys(&self, of: Option<&WorkspaceId>) -> Result<Vec<KeyRecord>, StoreError> {
        let mut keys = db::keys::list(&self.connection)?;
        keys.retain(|key| of.is_none_or(|of| key.workspace == *of));
        Ok(keys)
    }

    /// Tells what each whole workspace holds, and has used in the last `days` days, today among them, until told to stop.
    pub fn usage(
        &self,
        of: Option<&WorkspaceId>,
        days: u32,
        mut tell: impl FnMut(Usage) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let since = Day::of(self.clock.now()).before(days.saturating_sub(1));
        if let Some(of) = of {
            let _only_one = tell(self.usage_of(of.clone(), since)?);
            return Ok(());
        }
        let mut after = String::new();
        loop {
            let page = db::records::wholes_after(&self.connection, &after, PAGE_ROWS.into())?;
            let is_last = page.len() < usize::from(PAGE_ROWS);
            for workspace in page {
                after = workspace.as_str().to_owned();
                if tell(self.usage_of(workspace, since)?).is_break() {
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn usage_of(&self, workspace: WorkspaceId, since: Day) -> Result<Usage, StoreError> {
        let held = db::tenants::held(&self.connection, &workspace)?;
        let containers = db::records::containers_going(&self.connection, &workspace, self.clock.now())?;
        let days = db::records::days_since(&self.connection, &workspace, since)?;
        let days = days.into_iter().map(|(day, used)| DayUse { day, used }).collect();
        Ok(Usage { workspace, files: held.files, bytes: held.bytes, containers, days })
    }

    /// One container, and its named checkpoints.
    pub fn container(&self, id: &ContainerId) -> Result<Option<(HeldContainer, Vec<NamedCheckpoint>)>, StoreError> {
        let connection = &self.connection;
        let Some(Part { workspace, user }) = db::records::owner_of_container(connection, id.as_str())? else {
            return Ok(None);
        };
        let Some(record) = db::containers::find(connection, &workspace, id)? else { return Ok(None) };
        let kept = db::checkpoints::find(connection, &workspace, id)?;
        let (mut named, mut after) = (Vec::new(), None);
        loop {
            let page = db::named_checkpoints::list(connection, &workspace, id, after, PAGE_ROWS)?;
            named.extend(page.entries);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(Some((HeldContainer { record, user, kept }, named))),
            }
        }
    }

    /// One file.
    pub fn file(&self, id: &FileId) -> Result<Option<HeldFile>, StoreError> {
        let Some(Part { workspace, user }) = db::records::owner_of_file(&self.connection, id.as_str())? else {
            return Ok(None);
        };
        let found = db::files::find(&self.connection, &workspace, id)?;
        Ok(found.map(|record| HeldFile { record, user }))
    }

    /// One key.
    pub fn key(&self, id: &KeyId) -> Result<Option<KeyRecord>, StoreError> {
        Ok(db::keys::list(&self.connection)?.into_iter().find(|key| key.id == *id))
    }

    /// Goes through all parts of workspaces, and through all of what each has.
    fn walk<T>(
        &self,
        of: Option<&WorkspaceId>,
        page: impl Fn(&WorkspaceId, Option<PageCursor>) -> Result<Paged<T>, StoreError>,
        mut tell: impl FnMut(T, Option<UserId>) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut behind = String::new();
        loop {
            let parts = db::records::parts_after(&self.connection, of, &behind, PAGE_ROWS.into())?;
            let is_last = parts.len() < usize::from(PAGE_ROWS);
            for Part { workspace, user } in parts {
                let mut after = None;
                loop {
                    let found = page(&workspace, after)?;
                    for entry in found.entries {
                        if tell(entry, user.clone())?.is_break() {
                            return Ok(());
                        }
                    }
                    match found.next {
                        Some(next) => after = Some(next),
                        None => break,
                    }
                }
                behind = workspace.as_str().to_owned();
            }
            if is_last {
                return Ok(());
            }
        }
    }
}
