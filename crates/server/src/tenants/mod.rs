//! What workspaces may hold and use: limits from the configuration, buckets by the minute, quotas by the day (docs/tenants.md).
//!
//! All are of whole workspaces: an end user's part counts towards the workspace that it is a part of.

pub mod bucket;
pub mod limits;
pub mod meter;
pub mod permit;
pub mod rates;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use belljar_store::{Store, WorkspaceId};
use belljar_wire::error::{ApiError, ErrorKind};

use crate::access::Caller;
use crate::app::App;
use crate::clock;
use crate::failure::Failure;
use crate::routes::files::store_failure;
use limits::{AllLimits, Limits};
use meter::Meter;
use rates::Rates;

/// Everything that is counted.
pub struct Tenants {
    limits: AllLimits,
    rates: Rates,
    store: Store,
}

/// Who waits for a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A client: limits by the minute hold.
    Attended,
    /// Nobody: it is one of a batch, which runs as fast as the server lets it. Only quotas by the day hold (divergence/limits.md).
    Batch,
}

impl Tenants {
    /// Nothing used yet, but what the store knows of.
    pub fn new(limits: AllLimits, store: Store) -> Self {
        Self { limits, rates: Rates::default(), store }
    }

    /// What a workspace may do.
    pub fn limits(&self, workspace: &WorkspaceId) -> Limits {
        self.limits.of(workspace)
    }

    /// About how many tokens a request's body has, where anybody wants to know before it is sent.
    pub fn estimate(&self, workspace: &WorkspaceId, pace: Pace, body: &[u8]) -> u64 {
        let limits = self.limits(workspace);
        let by_the_minute = limits.input_tokens_per_minute_max.is_some() && pace == Pace::Attended;
        match by_the_minute || limits.tokens_per_day_max.is_some() {
            true => belljar_model::estimate_of_body(body),
            false => 0,
        }
    }

    /// Begins to count a turn that is about to read so many tokens.
    ///
    /// # Errors
    /// 429: with `retry-after` for a limit by the minute, and one that is not tried again for a quota by the day.
    pub async fn begin_turn(
        self: &Arc<Self>,
        workspace: &WorkspaceId,
        pace: Pace,
        tokens: u64,
    ) -> Result<Meter, Failure> {
        let limits = self.limits(workspace);
        let day = match limits.tokens_per_day_max {
            None => None,
            Some(max) => {
                let taken = self.store.take_tokens(workspace, tokens, max).await;
                let taken = taken.map_err(store_failure)?;
                Some(taken.ok_or_else(|| self.used_up(max, "tokens"))?)
            }
        };
        // From here on it is given back when it is dropped.
        let mut meter = Meter::new(Arc::clone(self), workspace.clone(), day, tokens);
        if pace == Pace::Attended {
            self.rates.take_input(workspace, &limits, tokens, clock::instant_now())?;
            meter.counts_by_the_minute(tokens);
        }
        Ok(meter)
    }

    /// Counts an execution that is about to begin.
    ///
    /// # Errors
    /// 429 when the day's are used up, or they cannot be counted.
    pub async fn take_execution(&self, workspace: &WorkspaceId) -> Result<(), Failure> {
        let Some(max) = self.limits(workspace).executions_per_day_max else { return Ok(()) };
        match self.store.take_execution(workspace, max).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.used_up(max, "executions")),
            Err(error) => Err(store_failure(error)),
        }
    }

    /// A quota by the day is like a spend limit: 429 without `retry-after`, and the SDKs are told not to try again (wire.md §2.6, §2.7).
    fn used_up(&self, max: u64, what: &str) -> Failure {
        let again = self.store.today().end();
        let text =
            format!("This would exceed this workspace's quota of {max} {what} per day. It is whole again at {again}.");
        Failure::from(ApiError::new(ErrorKind::RateLimit, text)).do_not_retry()
    }
}

/// Counts a request, and tells what is left in the reply's headers, which whoever writes the reply adds.
pub async fn limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(workspace) = request.extensions().get::<Caller>().map(|caller| caller.workspace().clone()) else {
        return Failure::internal("limits", &"a request that nobody sent").into_response();
    };
    let limits = app.tenants.limits(&workspace);
    let rates = &app.tenants.rates;
    let mut response = match rates.take_request(&workspace, &limits, clock::instant_now()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    response.extensions_mut().insert(rates.headers(&workspace, &limits, clock::instant_now(), clock::now()));
    response
}
