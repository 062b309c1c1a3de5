//! What an upstream's failures mean: for the server's next step, for the client, for the operator.

use std::time::Duration;

use belljar_wire::read::Brief;
use serde::Deserialize;

use super::decode::DecodeFault;
use super::frames::vendors_tag;
use crate::error::{Phase, UpstreamError, UpstreamErrorKind};
use crate::link::{Link, Refusal, Scrub};
use crate::overlong;

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
    let is_overlong = told.as_ref().is_some_and(|told| overlong::is_told(&[&told.error.tag], &told.error.message));
    let message = match told {
        Some(told) => scrub.clean(&told.error.message),
        None => scrub.clean(&String::from_utf8_lossy(&refusal.body)),
    };
    let error = UpstreamError::new(kind, refusal.line(upstream, &message));
    match kind {
        UpstreamErrorKind::Rejected { status: 400 | 422 } if in_its_voice && !message.is_empty() => {
            error.telling(if is_overlong { overlong::told(message) } else { message })
        }
        _ => error,
    }
}

#[derive(Deserialize)]
struct AmazonsText {
    #[serde(default, alias = "Message")]
    message: String,
    #[serde(rename = "__type", default)]
    tag: String,
}

/// The same of Amazon Bedrock: the name of an exception says more than the status.
pub(super) fn refused_by_amazon(refusal: &Refusal, link: &Link) -> UpstreamError {
    let scrub = link.scrub();
    let told: Option<AmazonsText> = serde_json::from_slice(&refusal.body).ok();
    let in_body = told.as_ref().map(|told| told.tag.rsplit('#').next().unwrap_or_default());
    let exception = refusal.exception.as_deref().or(in_body.filter(|tag| !tag.is_empty()));
    let by_status = UpstreamErrorKind::of_status(refusal.status, refusal.retry_after);
    let kind = match (exception.map(vendors_tag), refusal.status) {
        // Not the service's own voice.
        (None, 404) => UpstreamErrorKind::NoSuchEndpoint,
        (None | Some("api_error"), _) => by_status,
        (Some(tag), _) => kind_of(tag, refusal.retry_after),
    };
    let message = match &told {
        Some(told) => scrub.clean(&told.message),
        None => scrub.clean(&String::from_utf8_lossy(&refusal.body)),
    };
    let name = exception.map(|name| format!("{}: ", Brief(name))).unwrap_or_default();
    let error = UpstreamError::new(kind, refusal.line(&link.name, &format!("{name}{message}")));
    match kind {
        UpstreamErrorKind::Rejected { status: 400 } if exception.is_some() && is_for_clients(&message) => {
            error.telling(message)
        }
        _ => error,
    }
}

/// Names of the operator's resources hold the number of the account.
fn is_for_clients(message: &str) -> bool {
    !message.is_empty() && !message.contains("arn:")
}

#[derive(Deserialize)]
struct GooglesBody {
    error: GooglesText,
}

#[derive(Deserialize)]
struct GooglesText {
    #[serde(default)]
    message: String,
    status: String,
}

/// The same of Vertex AI: the model's errors are the vendor's own, the rest is Google's, and names projects.
pub(super) fn refused_by_google(refusal: &Refusal, link: &Link) -> UpstreamError {
    // Some come as a list of one.
    let googles = serde_json::from_slice::<GooglesBody>(&refusal.body)
        .or_else(|_| serde_json::from_slice::<[GooglesBody; 1]>(&refusal.body).map(|[body]| body));
    let Ok(GooglesBody { error: GooglesText { message, status } }) = googles else {
        return refused(refusal, link);
    };
    let kind = UpstreamErrorKind::of_status(refusal.status, refusal.retry_after);
    let message = link.scrub().clean(&message);
    UpstreamError::new(kind, refusal.line(&link.name, &format!("{}: {message}", Brief(&status))))
}

/// The kind that goes with an error's type.
fn kind_of(tag: &str, retry_after: Option<Duration>) -> UpstreamErrorKind {
    match tag {
        "overloaded_error" => UpstreamErrorKind::Overloaded { retry_after },
        "rate_limit_error" => UpstreamErrorKind::RateLimited { retry_after },
        "invalid_request_error" => UpstreamErrorKind::Rejected { status: 400 },
        "request_too_large" => UpstreamErrorKind::Rejected { status: 413 },
        "authentication_error" | "permission_error" | "billing_error" => UpstreamErrorKind::Authentication,
        "not_found_error" => UpstreamErrorKind::ModelNotFound,
        "timeout_error" => UpstreamErrorKind::TimedOut { phase: Phase::Upstream },
        // `api_error`, and what later years bring.
        _ => UpstreamErrorKind::Unavailable,
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
    let kind = kind_of(&tag, None);
    let error = UpstreamError::new(kind, format!("upstream `{upstream}`: error event `{}`: {message}", Brief(&tag)));
    match kind {
        UpstreamErrorKind::Rejected { status: 400 } if is_for_clients(&message) => error.telling(message),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    const SCRUB: Scrub<'_> = Scrub { key: "sk-secret", token: None, base_url: "https://up.example" };

    fn refusal(status: u16, body: &str) -> UpstreamError {
        let mut refusal = Refusal::new(status, &HeaderMap::new());
        refusal.body = body.as_bytes().to_vec();
        into_error(&refusal, "up", &SCRUB)
    }

    #[test]
    fn statuses_as_data() {
        let not_found = r#"{"type":"error","error":{"type":"not_found_error","message":"model: x"}}"#;
        let invalid = r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages.0: sk-secret at https://up.example"}}"#;
        let hosted =
            r#"{"error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}"#;
        let llama_cpp = r#"{"error":{"code":400,"message":"request (9 tokens) exceeds the available context size (8 tokens)","type":"exceed_context_size_error"}}"#;
        let cases = [
            (400, invalid, UpstreamErrorKind::Rejected { status: 400 }, 400, "messages.0: *** at ***"),
            (400, hosted, UpstreamErrorKind::Rejected { status: 400 }, 400, "prompt is too long: 9 tokens > 8 maximum"),
            (
                400,
                llama_cpp,
                UpstreamErrorKind::Rejected { status: 400 },
                400,
                "prompt is too long: request (9 tokens) exceeds the available context size (8 tokens)",
            ),
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
