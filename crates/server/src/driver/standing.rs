//! Whether the key that began a turn still opens anything. A key is checked when a request comes in; a turn may ask its model for many
//! minutes after that, and a key is revoked because somebody has it who should not.

use std::sync::Arc;
use std::time::Duration;

use belljar_ids::KeyId;
use belljar_model::{SamplingHints, SamplingStream, Upstream, UpstreamError, UpstreamErrorKind};
use belljar_store::ShownKey;
use belljar_wire::sampling::SamplingRequest;
use futures_util::{StreamExt as _, stream};

use crate::access::refused;
use crate::app::Shared;
use crate::clock::Stopwatch;

/// How long the check of the request itself is good for.
const CHECKED_FOR: Duration = Duration::from_secs(1);

/// The standing of one turn.
pub struct Standing {
    app: Shared,
    key: Option<KeyId>,
    since: Stopwatch,
}

impl Standing {
    /// Of a turn that begins now, by this key; by none where the server has none, and in a batch, which outlives its key.
    pub fn new(app: Shared, key: Option<KeyId>) -> Self {
        Self { app, key, since: Stopwatch::start() }
    }

    /// Asks the model, unless the key has ended since.
    pub fn sample(
        &self,
        upstream: &Arc<dyn Upstream>,
        request: SamplingRequest,
        hints: SamplingHints,
    ) -> SamplingStream {
        let Some(key) = self.key.clone().filter(|_key| self.since.elapsed() >= CHECKED_FOR) else {
            return upstream.sample(request, hints);
        };
        let (app, upstream) = (Shared::clone(&self.app), Arc::clone(upstream));
        let checked = async move {
            match ended(&app, &key).await {
                Some(error) => stream::iter([Err(error)]).boxed(),
                None => upstream.sample(request, hints),
            }
        };
        stream::once(checked).flatten().boxed()
    }
}

/// A database that cannot be asked has revoked nothing: the turn goes on.
async fn ended(app: &Shared, key: &KeyId) -> Option<UpstreamError> {
    let shown = match app.store.key(key).await {
        Ok(ShownKey::Opens(_)) => return None,
        Ok(no_key) => no_key,
        Err(error) => {
            tracing::warn!(%error, key_id = %key, "whether the key of a running turn still holds could not be looked up");
            return None;
        }
    };
    Some(UpstreamError {
        // Asking again is no use.
        kind: UpstreamErrorKind::Authentication,
        client: refused(&shown).into_error(),
        operator: format!("not asked: the key {key} has ended since the turn began"),
    })
}
