//! An upstream that fails and fails is left alone for a while: its clients are told at once, and it is not asked while it recovers.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Resilience;
use crate::error::UpstreamErrorKind;

/// What is known of one upstream's health.
#[derive(Debug)]
pub(crate) struct Breaker {
    failures_max: u32,
    rest: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// Nobody asks before.
    rests_until: Option<Instant>,
}

impl Breaker {
    pub(crate) fn new(resilience: &Resilience) -> Self {
        Self { failures_max: resilience.failures_max, rest: resilience.rest, state: Mutex::default() }
    }

    /// Whether the upstream may be asked.
    ///
    /// # Errors
    /// How long it still rests. When the time is over, one request at a time finds out how it is; the others wait as long again.
    pub(crate) fn admit(&self) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = state.rests_until else {
            return Ok(());
        };
        let now = Instant::now();
        if now < until {
            return Err(until - now);
        }
        state.rests_until = Some(now + self.rest);
        Ok(())
    }

    /// The upstream has given a whole reply, or a refusal that shows that it works.
    pub(crate) fn worked(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// A sampling has come to this error.
    pub(crate) fn failed(&self, kind: UpstreamErrorKind) {
        if !is_illness(kind) {
            return self.worked();
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        if self.failures_max > 0 && state.failures >= self.failures_max {
            state.rests_until = Some(Instant::now() + self.rest);
        }
    }
}

/// Whether an error tells of an upstream that does not work, rather than of a request that it does not like.
const fn is_illness(kind: UpstreamErrorKind) -> bool {
    match kind {
        UpstreamErrorKind::Overloaded { .. }
        | UpstreamErrorKind::NoSuchEndpoint
        | UpstreamErrorKind::Unavailable
        | UpstreamErrorKind::TimedOut { .. }
        | UpstreamErrorKind::Protocol
        | UpstreamErrorKind::Cut => true,
        UpstreamErrorKind::RateLimited { .. }
        | UpstreamErrorKind::Rejected { .. }
        | UpstreamErrorKind::Authentication
        | UpstreamErrorKind::ModelNotFound
        | UpstreamErrorKind::NotRecorded
        | UpstreamErrorKind::TooLarge => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn it_rests_after_failures_in_a_row_and_is_tried_once_afterwards() {
        let breaker = Breaker::new(&Resilience { failures_max: 2, rest: REST, ..Resilience::default() });
        breaker.failed(UpstreamErrorKind::Unavailable);
        assert_eq!(breaker.admit(), Ok(()));
        breaker.worked();
        breaker.failed(UpstreamErrorKind::Unavailable);
        breaker.failed(UpstreamErrorKind::Rejected { status: 400 });
        breaker.failed(UpstreamErrorKind::Cut);
        assert_eq!(breaker.admit(), Ok(()));
        breaker.failed(UpstreamErrorKind::Cut);
        assert_eq!(breaker.admit(), Err(REST));
        tokio::time::advance(REST).await;
        assert_eq!(breaker.admit(), Ok(()));
        assert_eq!(breaker.admit(), Err(REST));
        breaker.failed(UpstreamErrorKind::Unavailable);
        assert_eq!(breaker.admit(), Err(REST));
        tokio::time::advance(REST).await;
        assert_eq!(breaker.admit(), Ok(()));
        breaker.worked();
        assert_eq!((breaker.admit(), breaker.admit()), (Ok(()), Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_it_never_rests() {
        let breaker = Breaker::new(&Resilience { failures_max: 0, ..Resilience::default() });
        for _ in 0..1_000 {
            breaker.failed(UpstreamErrorKind::Unavailable);
        }
        assert_eq!(breaker.admit(), Ok(()));
    }
}
