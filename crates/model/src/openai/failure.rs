//! What this dialect's failures mean: for the server's next step, for the client, for the operator.

use belljar_wire::read::Brief;
use serde_json::{Map, Value};

use super::decode::DecodeFault;
use crate::error::{Phase, UpstreamError, UpstreamErrorKind};
use crate::link::{Link, Refusal, Scrub};
use crate::overlong;

/// An error as an upstream tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// `error.type` and `error.code`, as far as they are words, in lower case.
    words: Vec<String>,
    /// `error.code` or `status`, where it is an HTTP status.
    status: Option<u16>,
    pub(super) message: String,
}

impl Told {
    /// An error of which there is only a text.
    pub(super) fn saying(message: String) -> Self {
        Self { message, ..Self::default() }
    }

    /// The forms of an error: `{"error": {…}}`, `{"error": "…"}`, `{"object": "error", …}` of older vLLMs, `{"type": "error", …}`.
    pub(super) fn of_members(members: &Map<String, Value>) -> Option<Self> {
        match members.get("error") {
            Some(Value::Object(inner)) => Some(Self::read(inner)),
            Some(Value::String(message)) => Some(Self::saying(message.clone())),
            Some(_) | None => {
                let says = |key: &str| members.get(key).is_some_and(|tag| tag == "error");
                (says("object") || says("type")).then(|| Self::read(members))
            }
        }
    }

    /// The same in a refusal's body, where `{"message": …}` and `{"detail": …}` are errors, too.
    fn of_body(body: &[u8]) -> Option<Self> {
        let members: Map<String, Value> = serde_json::from_slice(body).ok()?;
        Self::of_members(&members).or_else(|| {
            ["message", "detail"].iter().any(|key| members.contains_key(*key)).then(|| Self::read(&members))
        })
    }

    fn read(members: &Map<String, Value>) -> Self {
        let of = |key: &str| members.get(key).filter(|value| !value.is_null());
        let words = ["type", "code"].iter().filter_map(|key| of(key)?.as_str()).map(str::to_ascii_lowercase);
        let status = ["code", "status", "status_code"].iter().find_map(|key| {
            let status = u16::try_from(of(key)?.as_u64()?).ok()?;
            (400..=599).contains(&status).then_some(status)
        });
        let message = of("message").or_else(|| of("detail")).map(|message| match message {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        Self { words: words.collect(), status, message: message.unwrap_or_default() }
    }

    fn says(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }

    /// The kind that its words stand for.
    fn kind(&self) -> Option<UpstreamErrorKind> {
        WORDS.iter().find(|(word, _)| self.says(word)).map(|(_, kind)| *kind)
    }

    /// Whether the conversation is longer than the model can read.
    fn is_too_long(&self) -> bool {
        overlong::is_told(&self.words, &self.message)
    }
}

/// Words that tell more than the status, or tell it where there is none.
const WORDS: [(&str, UpstreamErrorKind); 21] = [
    // A 429 that no waiting mends.
    ("insufficient_quota", UpstreamErrorKind::Authentication),
    ("invalid_api_key", UpstreamErrorKind::Authentication),
    ("authentication_error", UpstreamErrorKind::Authentication),
    ("permission_error", UpstreamErrorKind::Authentication),
    ("model_not_found", UpstreamErrorKind::ModelNotFound),
    ("notfounderror", UpstreamErrorKind::ModelNotFound),
    ("rate_limit_exceeded", UpstreamErrorKind::RateLimited { retry_after: None }),
    ("rate_limit_error", UpstreamErrorKind::RateLimited { retry_after: None }),
    ("overloaded_error", UpstreamErrorKind::Overloaded { retry_after: None }),
    ("overloaded", UpstreamErrorKind::Overloaded { retry_after: None }),
    ("server_overloaded", UpstreamErrorKind::Overloaded { retry_after: None }),
    ("unavailable_error", UpstreamErrorKind::Overloaded { retry_after: None }),
    ("serviceunavailableerror", UpstreamErrorKind::Overloaded { retry_after: None }),
    ("timeout_error", UpstreamErrorKind::TimedOut { phase: Phase::Upstream }),
    ("timeout", UpstreamErrorKind::TimedOut { phase: Phase::Upstream }),
    ("context_length_exceeded", UpstreamErrorKind::Rejected { status: 400 }),
    ("exceed_context_size_error", UpstreamErrorKind::Rejected { status: 400 }),
    ("invalid_request_error", UpstreamErrorKind::Rejected { status: 400 }),
    ("badrequesterror", UpstreamErrorKind::Rejected { status: 400 }),
    ("bad_request", UpstreamErrorKind::Rejected { status: 400 }),
    ("content_filter", UpstreamErrorKind::Rejected { status: 400 }),
];

/// The error that a refusal comes to.
pub(super) fn refused(refusal: &Refusal, link: &Link) -> UpstreamError {
    into_error(refusal, &link.name, &link.scrub())
}

fn into_error(refusal: &Refusal, upstream: &str, scrub: &Scrub<'_>) -> UpstreamError {
    let told = Told::of_body(&refusal.body);
    let kind = match (refusal.status, &told) {
        (429, Some(told)) if told.says("insufficient_quota") => UpstreamErrorKind::Authentication,
        // A wrong path is answered by whatever stands before the API, or by its framework.
        (404, Some(told)) if told.kind() == Some(UpstreamErrorKind::ModelNotFound) => UpstreamErrorKind::ModelNotFound,
        (404, Some(told)) if told.message.to_ascii_lowercase().contains("model") => UpstreamErrorKind::ModelNotFound,
        (404, _) => UpstreamErrorKind::NoSuchEndpoint,
        // Loading its model, or full.
        (503, _) => UpstreamErrorKind::Overloaded { retry_after: refusal.retry_after },
        (status, _) => UpstreamErrorKind::of_status(status, refusal.retry_after),
    };
    let raw = || Told::saying(String::from_utf8_lossy(&refusal.body).into_owned());
    let in_its_voice = told.is_some();
    let told = told.unwrap_or_else(raw);
    let message = scrub.clean(&told.message);
    let error = UpstreamError::new(kind, refusal.line(upstream, &message));
    if in_its_voice { spoken(error, &told, message) } else { error }
}

/// The error that a broken reply comes to.
pub(super) fn of_fault(fault: DecodeFault, upstream: &str, scrub: &Scrub<'_>) -> UpstreamError {
    let told = match fault {
        DecodeFault::Protocol(text) => {
            let text = scrub.clean(&text);
            return UpstreamError::new(UpstreamErrorKind::Protocol, format!("upstream `{upstream}`: {text}"));
        }
        DecodeFault::Error(told) => told,
    };
    let message = scrub.clean(&told.message);
    let of_status = told.status.map(|status| match status {
        503 => UpstreamErrorKind::Overloaded { retry_after: None },
        status => UpstreamErrorKind::of_status(status, None),
    });
    let kind = told.kind().or(of_status).unwrap_or(UpstreamErrorKind::Unavailable);
    let words = Brief(&told.words.join(", ")).to_string();
    let error = UpstreamError::new(kind, format!("upstream `{upstream}`: it told of an error ({words}): {message}"));
    spoken(error, &told, message)
}

/// Words about the client's own request are the client's to read.
fn spoken(error: UpstreamError, told: &Told, message: String) -> UpstreamError {
    match error.kind {
        UpstreamErrorKind::Rejected { status: 400 | 422 } if !message.is_empty() => {
            error.telling(if told.is_too_long() { overlong::told(message) } else { message })
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    const SCRUB: Scrub<'_> = Scrub { key: "sk-secret", token: None, base_url: "https://up.example" };

    /// (status, body, kind, what the client is told, or nothing where it is this server's own text).
    const REFUSALS: &[(u16, &str, UpstreamErrorKind, &str)] = &[
        (
            400,
            r#"{"error":{"message":"no sk-secret at https://up.example","type":"invalid_request_error","param":"x","code":null}}"#,
            UpstreamErrorKind::Rejected { status: 400 },
            "no *** at ***",
        ),
        (
            400,
            r#"{"object":"error","message":"This model's maximum context length is 8192 tokens.","type":"BadRequestError","code":400}"#,
            UpstreamErrorKind::Rejected { status: 400 },
            "prompt is too long: This model's maximum context length is 8192 tokens.",
        ),
        (
            400,
            r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_ctx":4096}}"#,
            UpstreamErrorKind::Rejected { status: 400 },
            "prompt is too long: the request exceeds the available context size",
        ),
        (
            422,
            r#"{"detail":[{"loc":["body"],"msg":"bad"}]}"#,
            UpstreamErrorKind::Rejected { status: 422 },
            r#"[{"loc":["body"],"msg":"bad"}]"#,
        ),
        (
            400,
            r#"{"error":"does not support tools"}"#,
            UpstreamErrorKind::Rejected { status: 400 },
            "does not support tools",
        ),
        (400, "<html>", UpstreamErrorKind::Rejected { status: 400 }, ""),
        (401, r#"{"error":{"message":"bad key","code":"invalid_api_key"}}"#, UpstreamErrorKind::Authentication, ""),
        (
            404,
            r#"{"error":{"message":"model 'x' not found","type":"api_error"}}"#,
            UpstreamErrorKind::ModelNotFound,
            "",
        ),
        (
            404,
            r#"{"object":"error","message":"`x` does not exist.","type":"NotFoundError","code":404}"#,
            UpstreamErrorKind::ModelNotFound,
            "",
        ),
        (404, r#"{"detail":"Not Found"}"#, UpstreamErrorKind::NoSuchEndpoint, ""),
        (404, "404 page not found", UpstreamErrorKind::NoSuchEndpoint, ""),
        (
            429,
            r#"{"error":{"message":"slow","type":"requests","code":"rate_limit_exceeded"}}"#,
            UpstreamErrorKind::RateLimited { retry_after: None },
            "",
        ),
        (
            429,
            r#"{"error":{"message":"pay","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            UpstreamErrorKind::Authentication,
            "",
        ),
        (500, r#"{"error":{"message":"x"}}"#, UpstreamErrorKind::Unavailable, ""),
        (502, "<html>", UpstreamErrorKind::Unavailable, ""),
        (
            503,
            r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
            UpstreamErrorKind::Overloaded { retry_after: None },
            "",
        ),
        (504, "", UpstreamErrorKind::TimedOut { phase: Phase::Upstream }, ""),
    ];

    #[test]
    fn refusals_as_data() {
        for (status, body, kind, told) in REFUSALS {
            let mut refusal = Refusal::new(*status, &HeaderMap::new());
            refusal.body = body.as_bytes().to_vec();
            let error = into_error(&refusal, "up", &SCRUB);
            assert_eq!(error.kind, *kind, "{status} {body}");
            if told.is_empty() {
                assert_eq!(error, UpstreamError::new(*kind, error.operator.clone()), "{status} {body}");
            } else {
                assert_eq!(error.client.message, *told, "{status} {body}");
            }
        }
    }
}
