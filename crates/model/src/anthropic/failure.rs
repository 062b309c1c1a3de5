//! What an upstream's failures mean: for the server's next step, for the client, for the operator.

use belljar_wire::read::Brief;
use serde::Deserialize;

use super::decode::DecodeFault;
use crate::error::{Phase, UpstreamError, UpstreamErrorKind};
use crate::link::{Link, Refusal, Scrub};

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

/// The error that a refusal comes to.
pub(super) fn refused(refusal: &Refusal, link: &Link) -> UpstreamError {
    into_error(refusal, &link.name, &link.scrub())
}

fn into_error(refusal: &Refusal, upstream: &str, scrub: &Scrub<'_>) -> UpstreamError {
    let told: Option<ErrorBody> = serde_json::from_slice(&refusal.body).ok();
    let mut kind = UpstreamErrorKind::of_status(refusal.status, refusal.retry_after);
    if kind == UpstreamErrorKind::ModelNotFound && told.as_ref().is_none_or(|told| told.error.tag != "not_found_error")
    {
        // Not the API's own voice.
        kind = UpstreamErrorKind::NoSuchEndpoint;
    }
    let in_its_voice = told.is_some();
    let message = match told {
        Some(told) => scrub.clean(&told.error.message),
        None => scrub.clean(&String::from_utf8_lossy(&refusal.body)),
    };
    let error = UpstreamError::new(kind, refusal.line(upstream, &message));
    match kind {
        UpstreamErrorKind::Rejected { status: 400 | 422 } if in_its_voice && !message.is_empty() => {
            error.telling(message)
        }
        _ => error,
    }
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
        "overloaded_error" => UpstreamErrorKind::Overloaded { retry_after: None },
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

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    const SCRUB: Scrub<'_> = Scrub { key: "sk-secret", base_url: "https://up.example" };

    fn refusal(status: u16, body: &str) -> UpstreamError {
        let mut refusal = Refusal::new(status, &HeaderMap::new());
        refusal.body = body.as_bytes().to_vec();
        into_error(&refusal, "up", &SCRUB)
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
            (529, invalid, UpstreamErrorKind::Overloaded { retry_after: None }, 529, ""),
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
}
