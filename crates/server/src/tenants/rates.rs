//! Rate limits by the minute, and the headers that tell of them (wire.md §2.5).
//!
//! They are in memory: a server that starts again begins with full buckets, so that at worst twice a minute's worth is used in
//! the minute of a restart. What counts by the day is on disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use belljar_store::{Timestamp, WorkspaceId};
use belljar_wire::error::{ApiError, ErrorKind};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::bucket::{Bucket, Short};
use super::limits::Limits;
use crate::failure::Failure;

/// Token counts are told in thousands (wire.md §2.5).
const TOKENS_ROUNDED_TO: u64 = 1_000;

/// The buckets of every workspace that has a limit: as many as the operator has made workspaces.
#[derive(Debug, Default)]
pub struct Rates(Mutex<HashMap<WorkspaceId, Buckets>>);

/// The buckets of one workspace, of all its end users together.
#[derive(Debug)]
struct Buckets {
    requests: Option<Bucket>,
    input: Option<Bucket>,
    output: Option<Bucket>,
}

/// The headers of a reply, for whoever writes it.
#[derive(Clone, Debug, Default)]
pub struct RateHeaders(pub HeaderMap);

impl Rates {
    /// Takes one request.
    ///
    /// # Errors
    /// 429 when there have been too many.
    pub fn take_request(&self, workspace: &WorkspaceId, limits: &Limits, now: Instant) -> Result<(), Failure> {
        self.with(workspace, limits, now, |buckets| {
            let Some(requests) = &mut buckets.requests else { return Ok(()) };
            requests.has(1, now).map_err(|short| refused(short, requests.limit(), "requests"))?;
            requests.take(1, now);
            Ok(())
        })
    }

    /// Takes the tokens that a turn is going to read. What it writes is taken when it is written: there only has to be something
    /// left.
    ///
    /// # Errors
    /// 429 when too much was read or written of late.
    pub fn take_input(
        &self,
        workspace: &WorkspaceId,
        limits: &Limits,
        tokens: u64,
        now: Instant,
    ) -> Result<(), Failure> {
        self.with(workspace, limits, now, |buckets| {
            if let Some(output) = &mut buckets.output {
                output.has(1, now).map_err(|short| refused(short, output.limit(), "output tokens"))?;
            }
            let Some(input) = &mut buckets.input else { return Ok(()) };
            // As an estimate may be, no request is too large for a limit that is not yet used at all.
            let asked = tokens.min(input.limit());
            input.has(asked, now).map_err(|short| refused(short, input.limit(), "input tokens"))?;
            input.take(tokens, now);
            Ok(())
        })
    }

    /// Puts what a turn used in the place of what it took.
    pub fn settle(&self, workspace: &WorkspaceId, limits: &Limits, taken: u64, used: Tokens, now: Instant) {
        self.with(workspace, limits, now, |buckets| {
            if let Some(input) = &mut buckets.input {
                input.take(used.input.saturating_sub(taken), now);
                input.give_back(taken.saturating_sub(used.input), now);
            }
            if let Some(output) = &mut buckets.output {
                output.take(used.output, now);
            }
        });
    }

    /// What is left: only of what is limited.
    pub fn headers(&self, workspace: &WorkspaceId, limits: &Limits, now: Instant, at: Timestamp) -> RateHeaders {
        self.with(workspace, limits, now, |buckets| {
            let mut headers = HeaderMap::new();
            if let Some(requests) = &mut buckets.requests {
                let left = Left {
                    limit: requests.limit(),
                    remaining: requests.remaining(now),
                    full_in: requests.full_in(now),
                };
                left.tell(&mut headers, Family::Requests, at);
            }
            let of = |bucket: &mut Option<Bucket>| {
                let bucket = bucket.as_mut()?;
                Some(Left { limit: bucket.limit(), remaining: bucket.remaining(now), full_in: bucket.full_in(now) })
            };
            let (input, output) = (of(&mut buckets.input), of(&mut buckets.output));
            for (left, family) in
                [(input, Family::Input), (output, Family::Output), (Left::both(input, output), Family::Tokens)]
            {
                if let Some(left) = left {
                    left.in_thousands().tell(&mut headers, family, at);
                }
            }
            RateHeaders(headers)
        })
    }

    fn with<T>(
        &self,
        workspace: &WorkspaceId,
        limits: &Limits,
        now: Instant,
        work: impl FnOnce(&mut Buckets) -> T,
    ) -> T {
        let full = |limit: Option<u64>| limit.map(|per_minute| Bucket::full(per_minute, now));
        let new = || Buckets {
            requests: full(limits.requests_per_minute_max),
            input: full(limits.input_tokens_per_minute_max),
            output: full(limits.output_tokens_per_minute_max),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(all.entry(workspace.whole()).or_insert_with(new))
    }
}

/// Tokens of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read, without what came out of a cache, as the hosted API counts them.
    pub input: u64,
    /// Written.
    pub output: u64,
}

fn refused(short: Short, limit: u64, what: &str) -> Failure {
    let text = format!("This request would exceed the rate limit of this workspace: {limit} {what} per minute.");
    let failure = Failure::from(ApiError::new(ErrorKind::RateLimit, text));
    match short {
        Short::For(wait) => failure.retry_after(Some(wait)),
        Short::Forever => failure.do_not_retry(),
    }
}

/// A family of headers.
#[derive(Clone, Copy, Debug)]
enum Family {
    Requests,
    Tokens,
    Input,
    Output,
}

impl Family {
    /// Limit, remaining, reset.
    const fn names(self) -> [&'static str; 3] {
        match self {
            Self::Requests => [
                "anthropic-ratelimit-requests-limit",
                "anthropic-ratelimit-requests-remaining",
                "anthropic-ratelimit-requests-reset",
            ],
            Self::Tokens => [
                "anthropic-ratelimit-tokens-limit",
                "anthropic-ratelimit-tokens-remaining",
                "anthropic-ratelimit-tokens-reset",
            ],
            Self::Input => [
                "anthropic-ratelimit-input-tokens-limit",
                "anthropic-ratelimit-input-tokens-remaining",
                "anthropic-ratelimit-input-tokens-reset",
            ],
            Self::Output => [
                "anthropic-ratelimit-output-tokens-limit",
                "anthropic-ratelimit-output-tokens-remaining",
                "anthropic-ratelimit-output-tokens-reset",
            ],
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Left {
    limit: u64,
    remaining: u64,
    full_in: Duration,
}

impl Left {
    /// Of both together, where both are limited; of the one that is, otherwise.
    fn both(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(Self {
                limit: one.limit.saturating_add(other.limit),
                remaining: one.remaining.saturating_add(other.remaining),
                full_in: one.full_in.max(other.full_in),
            }),
            (one, other) => one.or(other),
        }
    }

    const fn in_thousands(self) -> Self {
        let half = TOKENS_ROUNDED_TO / 2;
        Self { remaining: (self.remaining.saturating_add(half)) / TOKENS_ROUNDED_TO * TOKENS_ROUNDED_TO, ..self }
    }

    fn tell(self, headers: &mut HeaderMap, family: Family, at: Timestamp) {
        let [limit, remaining, reset] = family.names().map(HeaderName::from_static);
        headers.insert(limit, HeaderValue::from(self.limit));
        headers.insert(remaining, HeaderValue::from(self.remaining));
        // Whole seconds, as the hosted API's: rounded up, so that nobody comes too early.
        let seconds = self.full_in.as_secs() + u64::from(self.full_in.subsec_nanos() > 0);
        if let Ok(value) = HeaderValue::from_str(&whole_seconds(at.saturating_add(Duration::from_secs(seconds)))) {
            headers.insert(reset, value);
        }
    }
}

/// RFC 3339 without a fraction.
fn whole_seconds(at: Timestamp) -> String {
    let text = at.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(requests: u64, input: u64, output: u64) -> Limits {
        Limits {
            requests_per_minute_max: Some(requests),
            input_tokens_per_minute_max: Some(input),
            output_tokens_per_minute_max: Some(output),
            ..Limits::default()
        }
    }

    fn told(rates: &Rates, limits: &Limits, now: Instant) -> Vec<String> {
        let at = "2026-11-29T12:00:00.25Z".parse().expect("an instant");
        let RateHeaders(headers) = rates.headers(&workspace(), limits, now, at);
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| {
                let name = name.as_str().trim_start_matches("anthropic-ratelimit-");
                format!("{name} {}", value.to_str().expect("text"))
            })
            .collect();
        lines.sort();
        lines
    }

    fn workspace() -> WorkspaceId {
        WorkspaceId::named("acme").expect("a name")
    }

    #[test]
    fn headers_are_the_hosted_apis() {
        let (rates, limits, now) = (Rates::default(), all(4, 40_000, 8_000), Instant::now());
        assert!(rates.take_request(&workspace(), &limits, now).is_ok());
        assert!(rates.take_input(&workspace(), &limits, 10_400, now).is_ok());
        rates.settle(&workspace(), &limits, 10_400, Tokens { input: 10_400, output: 1_000 }, now);
        let expected = [
            "input-tokens-limit 40000",
            "input-tokens-remaining 30000",
            "input-tokens-reset 2026-11-29T12:00:16Z",
            "output-tokens-limit 8000",
            "output-tokens-remaining 7000",
            "output-tokens-reset 2026-11-29T12:00:08Z",
            "requests-limit 4",
            "requests-remaining 3",
            "requests-reset 2026-11-29T12:00:15Z",
            "tokens-limit 48000",
            "tokens-remaining 37000",
            "tokens-reset 2026-11-29T12:00:16Z",
        ];
        assert_eq!(told(&rates, &limits, now), expected);
        assert_eq!(told(&Rates::default(), &Limits::default(), now), Vec::<String>::new());
    }

    #[test]
    fn of_requests_at_once_exactly_as_many_pass_as_may() {
        let (rates, limits, now) = (Rates::default(), all(5, 1, 1), Instant::now());
        let passed = std::thread::scope(|threads| {
            let asked: Vec<_> =
                (0..40).map(|_| threads.spawn(|| rates.take_request(&workspace(), &limits, now).is_ok())).collect();
            asked.into_iter().map(|asked| usize::from(asked.join().expect("it ends"))).sum::<usize>()
        });
        assert_eq!(passed, 5);
        let refused = rates.take_request(&workspace(), &limits, now).expect_err("there were five");
        assert_eq!((refused.wait(), refused.may_retry()), (Some(Duration::from_secs(12)), true));
    }

    #[test]
    fn end_users_share_what_their_workspace_has() {
        let (rates, limits, now) = (Rates::default(), all(2, 1, 1), Instant::now());
        for user in ["ann", "bob"] {
            let scope = workspace().scope_of(&user.parse().expect("a user"));
            assert!(rates.take_request(&scope, &limits, now).is_ok(), "{user}");
        }
        assert!(rates.take_request(&workspace(), &limits, now).is_err());
        assert!(rates.take_request(&WorkspaceId::named("other").expect("a name"), &limits, now).is_ok());
    }

    #[test]
    fn what_was_written_is_a_debt_until_it_is_paid() {
        let (rates, limits, now) = (Rates::default(), all(9, 1_000, 60), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(
            rates.take_input(&workspace(), &limits, 5_000, now).is_ok(),
            "an estimate alone refuses nobody for good"
        );
        rates.settle(&workspace(), &limits, 5_000, Tokens { input: 100, output: 90 }, now);
        let wait = rates.take_input(&workspace(), &limits, 0, now).map_err(|failure| failure.wait());
        assert_eq!(wait, Err(Some(Duration::from_secs(31))));
        assert!(rates.take_input(&workspace(), &limits, 900, after(31)).is_ok());
    }
}
