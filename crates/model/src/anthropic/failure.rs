//! What an upstream's failures mean: for the server's next step, for the client, for the operator.

use std::time::Duration;

use belljar_wire::read::Brief;
use http::HeaderMap;
use serde::Deserialize;

use super::decode::DecodeFault;
use crate::error::{Phase, UpstreamError, UpstreamErrorKind};

/// Longest message of the upstream that is passed on, in characters.
const MESSAGE_CHARS_MAX: usize = 2000;

/// An HTTP reply that is no success.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    /// `x-should-retry: false`.
    pub(super) final_word: bool,
    pub(super) request_id: Option<String>,
    /// As much of the body as is read.
    pub(super) body: Vec<u8>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorText,
}

#[derive(Deserialize)]
struct ErrorText {
    #[serde(rename = "type", default)]
    tag: String,
    #[serde(default)]
    message: String,
}

impl Refusal {
    /// Reads the headers; the body is added by whoever reads it.
    pub(super) fn new(status: u16, headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            status,
            retry_after: retry_after(headers),
            final_word: text("x-should-retry") == Some("false"),
            request_id: text("request-id").map(|id| Brief(id).to_string()),
            body: Vec::new(),
        }
    }

    /// Whether asking again may help: nothing of a reply has been seen yet.
    pub(super) fn is_transient(&self) -> bool {
        !self.final_word && self.status != 501 && matches!(self.status, 408 | 429 | 500..=599)
    }

    /// The error that it comes to.
    pub(super) fn into_error(self, upstream: &str, scrub: &Scrub<'_>) -> UpstreamError {
        let told: Option<ErrorBody> = serde_json::from_slice(&self.body).ok();
        let mut kind = UpstreamErrorKind::of_status(self.status, self.retry_after);
        if kind == UpstreamErrorKind::ModelNotFound
            && told.as_ref().is_none_or(|told| told.error.tag != "not_found_error")
        {
            // Not the API's own voice.
            kind = UpstreamErrorKind::NoSuchEndpoint;
        }
        let in_its_voice = told.is_some();
        let message = match told {
            Some(told) => scrub.clean(&told.error.message),
            None => scrub.clean(&String::from_utf8_lossy(&self.body)),
        };
        let operator = format!(
            "upstream `{upstream}`: HTTP {}{}: {message}",
            self.status,
            self.request_id.map(|id| format!(" ({id})")).unwrap_or_default(),
        );
        let error = UpstreamError::new(kind, operator);
        match kind {
            UpstreamErrorKind::Rejected { status: 400 | 422 } if in_its_voice && !message.is_empty() => {
                error.telling(message)
            }
            _ => error,
        }
    }
}

/// `retry-after-ms`, else `retry-after` in seconds. Dates are not read: there is no clock here.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| -> Option<f64> { headers.get(name)?.to_str().ok()?.trim().parse().ok() };
    let seconds = match number("retry-after-ms") {
        Some(milliseconds) => milliseconds / 1000.0,
        None => number("retry-after")?,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// The error that a broken reply comes to.
pub(super) fn of_fault(fault: DecodeFault, upstream: &str, scrub: &Scrub<'_>) -> UpstreamError {
    let (tag, message) = match fault {
        DecodeFault::Protocol(text) => {
            let text = scrub.clean(&text);
            return UpstreamError::new(UpstreamErrorKind::Protocol, format!("upstream `{upstream}`: {text}"));
        }
        DecodeFault::Error { tag, message } => (tag, scrub.clean(&message)),
    };
    let kind = match tag.as_str() {
        "overloaded_error" => UpstreamErrorKind::Overloaded,
        "rate_limit_error" => UpstreamErrorKind::RateLimited { retry_after: None },
        "invalid_request_error" => UpstreamErrorKind::Rejected { status: 400 },
        "request_too_large" => UpstreamErrorKind::Rejected { status: 413 },
        "authentication_error" | "permission_error" | "billing_error" => UpstreamErrorKind::Authentication,
        "not_found_error" => UpstreamErrorKind::ModelNotFound,
        "timeout_error" => UpstreamErrorKind::TimedOut { phase: Phase::Upstream },
        // `api_error`, and what later years bring.
        _ => UpstreamErrorKind::Unavailable,
    };
    let error = UpstreamError::new(kind, format!("upstream `{upstream}`: error event `{}`: {message}", Brief(&tag)));
    match kind {
        UpstreamErrorKind::Rejected { status: 400 } if !message.is_empty() => error.telling(message),
        _ => error,
    }
}

/// Takes what nobody may read out of an upstream's texts.
pub(super) struct Scrub<'a> {
    pub(super) key: &'a str,
    pub(super) base_url: &'a str,
}

impl Scrub<'_> {
    /// The text without the key and the address, and not endless.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for secret in [self.key, self.base_url] {
            if !secret.is_empty() {
                clean = clean.replace(secret, "***");
            }
        }
        if let Some((end, _)) = clean.char_indices().nth(MESSAGE_CHARS_MAX) {
            clean.truncate(end);
            clean.push('…');
        }
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRUB: Scrub<'_> = Scrub { key: "sk-secret", base_url: "https://up.example" };

    fn refusal(status: u16, body: &str) -> UpstreamError {
        let mut refusal = Refusal::new(status, &HeaderMap::new());
        refusal.body = body.as_bytes().to_vec();
        refusal.into_error("up", &SCRUB)
    }

    #[test]
    fn statuses_as_data() {
        let not_found = r#"{"type":"error","error":{"type":"not_found_error","message":"model: x"}}"#;
        let invalid = r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages.0: sk-secret at https://up.example"}}"#;
        let cases = [
            (400, invalid, UpstreamErrorKind::Rejected { status: 400 }, 400, "messages.0: *** at ***"),
            (400, "<html>", UpstreamErrorKind::Rejected { status: 400 }, 400, ""),
            (401, invalid, UpstreamErrorKind::Authentication, 500, ""),
            (403, invalid, UpstreamErrorKind::Authentication, 500, ""),
            (404, not_found, UpstreamErrorKind::ModelNotFound, 404, ""),
            (404, "nothing here", UpstreamErrorKind::NoSuchEndpoint, 500, ""),
            (413, invalid, UpstreamErrorKind::Rejected { status: 413 }, 413, ""),
            (429, invalid, UpstreamErrorKind::RateLimited { retry_after: None }, 429, ""),
            (302, "", UpstreamErrorKind::Unavailable, 500, ""),
            (500, invalid, UpstreamErrorKind::Unavailable, 500, ""),
            (504, "", UpstreamErrorKind::TimedOut { phase: Phase::Upstream }, 504, ""),
            (529, invalid, UpstreamErrorKind::Overloaded, 529, ""),
        ];
        for (status, body, kind, client_status, told) in cases {
            let error = refusal(status, body);
            assert_eq!(error.kind, kind, "{status}");
            assert_eq!(error.client.kind.status(), client_status, "{status}");
            if told.is_empty() {
                assert_eq!(error, UpstreamError::new(kind, error.operator.clone()), "{status}");
            } else {
                assert_eq!(error.client.message, told, "{status}");
            }
        }
    }

    #[test]
    fn retry_after_as_data() {
        type Headers = &'static [(&'static str, &'static str)];
        let cases: [(Headers, Option<u64>); 7] = [
            (&[], None),
            (&[("retry-after", "2")], Some(2000)),
            (&[("retry-after", "0.5")], Some(500)),
            (&[("retry-after", "2"), ("retry-after-ms", "30")], Some(30)),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "NaN")], None),
            (&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], None),
        ];
        for (headers, expected) in cases {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, http::HeaderValue::from_static(value));
            }
            assert_eq!(retry_after(&map), expected.map(Duration::from_millis), "{headers:?}");
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let cut = SCRUB.clean(&"é".repeat(MESSAGE_CHARS_MAX + 1));
        assert_eq!(cut, format!("{}…", "é".repeat(MESSAGE_CHARS_MAX)));
    }
}
