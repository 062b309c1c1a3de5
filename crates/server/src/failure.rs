//! A request that failed: the client's text, and what else the reply must carry.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use belljar_ids::RequestId;
use belljar_wire::error::{ApiError, ErrorBody, ErrorKind};
use http::header::{CONTENT_RANGE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

/// Header by which the official SDKs are told not to retry (wire.md §2.7).
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What a handler answers when it cannot do what was asked. The request's id is added where ids are known.
#[derive(Clone, Debug)]
pub struct Failure {
    error: ApiError,
    status: StatusCode,
    retry_after: Option<Duration>,
    should_retry: Option<bool>,
    /// Of a file, when no part of it was as asked.
    unsatisfied_bytes: Option<u64>,
}

impl Failure {
    /// A failure with another status than its kind's.
    pub fn with_status(error: ApiError, status: StatusCode) -> Self {
        Self { status, ..Self::from(error) }
    }

    /// A refusal by the HTTP framework, of a path or a header that cannot be read.
    pub fn of_framework(status: StatusCode) -> Self {
        let kind = if status.is_server_error() { ErrorKind::Api } else { ErrorKind::InvalidRequest };
        let text = status.canonical_reason().unwrap_or("The request could not be read");
        Self::with_status(ApiError::new(kind, text), status)
    }

    /// The same failure, telling when to try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// The same failure, telling the SDKs not to try again by themselves.
    #[must_use]
    pub fn do_not_retry(mut self) -> Self {
        self.should_retry = Some(false);
        self
    }

    /// 416: the file has so many bytes, and none of those that were asked for (RFC 9110, section 15.5.17).
    pub fn unsatisfied_range(bytes: u64) -> Self {
        let error = ApiError::invalid(format!("range: the file has {bytes} bytes"));
        let failure = Self::with_status(error, StatusCode::RANGE_NOT_SATISFIABLE);
        Self { unsatisfied_bytes: Some(bytes), ..failure }
    }

    /// Ours to fix: logged here with the operator's text, and told to the client without it.
    pub fn internal(what: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(what, %error, "request failed");
        Self::from(ApiError::new(ErrorKind::Api, "Internal server error"))
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind
    }

    /// When to try again, where that is known.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether trying again by itself can help at all.
    pub fn may_retry(&self) -> bool {
        self.should_retry != Some(false)
    }

    /// The body of the reply, for the request of that id.
    pub fn body(self, request_id: &RequestId) -> ErrorBody {
        ErrorBody::new(self.error, request_id.clone())
    }

    /// What the client is told, without what only a status line and headers can say.
    pub fn into_error(self) -> ApiError {
        self.error
    }

    /// The reply, for the request of that id.
    pub fn reply(self, request_id: &RequestId) -> Response {
        let body = ErrorBody::new(self.error, request_id.clone());
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(should_retry) = self.should_retry {
            let value = if should_retry { "true" } else { "false" };
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static(value));
        }
        if let Some(bytes) = self.unsatisfied_bytes
            && let Ok(value) = HeaderValue::from_str(&format!("bytes */{bytes}"))
        {
            response.headers_mut().insert(CONTENT_RANGE, value);
        }
        response
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let status = StatusCode::from_u16(error.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { error, status, retry_after: None, should_retry: None, unsatisfied_bytes: None }
    }
}

impl IntoResponse for Failure {
    /// An empty reply that carries the failure to the layer that knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
