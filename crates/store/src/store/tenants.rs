//! Workspaces and their end users: whose scopes are, and what quotas by the day have left.

use super::Store;
use super::threads::Writer;
use crate::db;
use crate::writer::blocking;
use crate::{Day, Holding, ShownKey, Spending, StoreError, UserId, WorkspaceId};
use belljar_ids::KeyId;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// How many scopes are remembered as entered. Beyond, they are entered again, which changes nothing.
const SCOPES_REMEMBERED: usize = 65_536;

/// Scopes that are known to be entered.
#[derive(Debug, Default)]
pub(super) struct Scopes(Mutex<HashSet<WorkspaceId>>);

impl Scopes {
    fn has(&self, scope: &WorkspaceId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(scope)
    }

    fn entered(&self, scope: WorkspaceId) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SCOPES_REMEMBERED {
            known.clear();
        }
        known.insert(scope);
    }
}

impl Store {
    /// Notes whose a scope is, before anything is made in it: quotas count what it holds by this, and people are told by it.
    pub async fn enter_scope(&self, scope: &WorkspaceId, user: &UserId) -> Result<(), StoreError> {
        if self.inner.scopes.has(scope) {
            return Ok(());
        }
        let (entered, user, now) = (scope.clone(), user.clone(), self.inner.limits.clock.now());
        let enter =
            move |writer: &mut Writer| writer.change(|change| db::tenants::enter_scope(change, &entered, &user, now));
        self.inner.writer.call(enter).await?;
        self.inner.scopes.entered(scope.clone());
        Ok(())
    }

    /// With what scopes are signed; `candidate` becomes it where nothing has been signed yet.
    pub async fn scope_secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let dir = self.inner.dir.clone();
        blocking(move || dir.secret(candidate)).await
    }

    /// Whom a key speaks for now that somebody has signed for.
    pub async fn key(&self, id: &KeyId) -> Result<ShownKey, StoreError> {
        let (id, now) = (id.clone(), self.inner.limits.clock.now());
        self.inner.reader.call(move |reader| db::keys::by_id(&reader.connection, &id, now)).await
    }

    /// Whether there has ever been a key.
    pub async fn has_keys(&self) -> Result<bool, StoreError> {
        self.inner.reader.call(|reader| db::keys::exist(&reader.connection)).await
    }

    /// Counts one more execution of today, on disk, unless the workspace has had `max`; whether it was counted. What was counted
    /// stays so, whatever becomes of the execution and of this process.
    pub async fn take_execution(&self, workspace: &WorkspaceId, max: u64) -> Result<bool, StoreError> {
        let (whole, day) = (workspace.whole(), self.today());
        let take =
            move |writer: &mut Writer| writer.change(|change| db::tenants::take_execution(change, &whole, day, max));
        self.inner.writer.call(take).await
    }

    /// Counts so many tokens of today beforehand, on disk, unless that would be more than `max`; the day if they were counted.
    pub async fn take_tokens(&self, workspace: &WorkspaceId, tokens: u64, max: u64) -> Result<Option<Day>, StoreError> {
        let (whole, day) = (workspace.whole(), self.today());
        let take = move |writer: &mut Writer| {
            writer.change(|change| db::tenants::take_tokens(change, &whole, day, tokens, max))
        };
        Ok(self.inner.writer.call(take).await?.then_some(day))
    }

    /// Puts what was used in the place of what was counted beforehand.
    pub async fn settle_tokens(
        &self,
        workspace: &WorkspaceId,
        day: Day,
        counted: u64,
        used: u64,
    ) -> Result<(), StoreError> {
        let whole = workspace.whole();
        let settle = move |writer: &mut Writer| {
            writer.change(|change| db::tenants::settle_tokens(change, &whole, day, counted, used))
        };
        self.inner.writer.call(settle).await
    }

    /// What the whole workspace has used today, as far as it was counted.
    pub async fn spending(&self, workspace: &WorkspaceId) -> Result<Spending, StoreError> {
        let (whole, day) = (workspace.whole(), self.today());
        self.inner.reader.call(move |reader| db::tenants::spending(&reader.connection, &whole, day)).await
    }

    /// What every workspace and every end user holds.
    pub async fn holdings(&self) -> Result<Vec<Holding>, StoreError> {
        let day = self.today();
        self.inner.reader.call(move |reader| db::tenants::holdings(&reader.connection, day)).await
    }

    /// The day whose quota counts now, and when the next begins.
    pub fn today(&self) -> Day {
        Day::of(self.inner.limits.clock.now())
    }
}
