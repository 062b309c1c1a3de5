//! Whether keys are asked for, and with what scopes are signed: what is found out once and holds from then on.

use std::sync::atomic::{AtomicBool, Ordering};

use belljar_ids::IdSource as _;
use belljar_store::Store;
use tokio::sync::OnceCell;

use crate::failure::Failure;
use crate::principal::Access;
use crate::random::OsIds;
use crate::routes::files::store_failure;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Gate {
    /// Once there is a key there always is: those that have ended count.
    keyed: AtomicBool,
    secret: OnceCell<[u8; 32]>,
}

impl Gate {
    /// How the next request is to be let in. An open server looks for a first key each time, so that `belljar keys create` beside
    /// it closes it at once.
    pub async fn access(&self, store: &Store) -> Result<Access, Failure> {
        if self.keyed.load(Ordering::Acquire) {
            return Ok(Access::Keys);
        }
        match store.has_keys().await.map_err(store_failure)? {
            false => Ok(Access::Open),
            true => {
                if !self.keyed.swap(true, Ordering::AcqRel) {
                    tracing::info!("there are keys: from now on one of them is needed");
                }
                Ok(Access::Keys)
            }
        }
    }

    /// With what scopes are signed.
    pub async fn secret(&self, store: &Store) -> Result<[u8; 32], Failure> {
        let kept = self.secret.get_or_try_init(|| {
            let mut candidate = [0; 32];
            OsIds.fill(&mut candidate);
            store.scope_secret(candidate)
        });
        kept.await.copied().map_err(store_failure)
    }
}
