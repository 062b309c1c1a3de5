//! Errors as the client sees them (wire.md §2.6).

use belljar_ids::RequestId;
use serde::Serialize;

/// The closed list of `error.type` values, each with its HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// 400: malformed or semantically invalid; also every unlisted 4xx.
    #[serde(rename = "invalid_request_error")]
    InvalidRequest,
    /// 401: no or bad credentials.
    #[serde(rename = "authentication_error")]
    Authentication,
    /// 402.
    #[serde(rename = "billing_error")]
    Billing,
    /// 403: the key is good, but not for this.
    #[serde(rename = "permission_error")]
    Permission,
    /// 404: unknown model, file, container or path.
    #[serde(rename = "not_found_error")]
    NotFound,
    /// 409: the thing is in use.
    #[serde(rename = "conflict_error")]
    Conflict,
    /// 413: more bytes than the endpoint takes.
    #[serde(rename = "request_too_large")]
    RequestTooLarge,
    /// 429, with `retry-after`.
    #[serde(rename = "rate_limit_error")]
    RateLimit,
    /// 500: ours to fix.
    #[serde(rename = "api_error")]
    Api,
    /// 504.
    #[serde(rename = "timeout_error")]
    Timeout,
    /// 529: try again later.
    #[serde(rename = "overloaded_error")]
    Overloaded,
}

impl ErrorKind {
    /// The HTTP status that goes with the kind.
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Authentication => 401,
            Self::Billing => 402,
            Self::Permission => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::RequestTooLarge => 413,
            Self::RateLimit => 429,
            Self::Api => 500,
            Self::Timeout => 504,
            Self::Overloaded => 529,
        }
    }
}

/// `error.details.error_code`: values for which the official SDKs have a class of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 400: content of an uploaded file was asked for.
    FileNotDownloadable,
    /// 404: content of an expired file.
    FileExpired,
    /// 400: the workspace's files would exceed their quota.
    StorageQuotaExceeded,
    /// 408: the body stopped coming.
    RequestBodyTimeout,
    /// 400: the body is compressed.
    RequestBodyEncodingUnsupported,
    /// 400: the body is JSON in another character set than UTF-8.
    UnsupportedCharset,
    /// 400: message threads are not offered; the SDKs resend without (wire.md §16).
    ThreadUnsupportedRequest,
}

/// Optional machine-readable part of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorDetails {
    /// See [`ErrorCode`].
    pub error_code: ErrorCode,
}

/// The client's half of an error. The operator's half is logged where the error is handled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// `error.type`.
    #[serde(rename = "type")]
    pub kind: ErrorKind,
    /// Text for a person; names the field at fault.
    pub message: String,
    /// Machine-readable reason, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<ErrorDetails>,
}

impl ApiError {
    /// An error without details.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: None }
    }

    /// A 400 `invalid_request_error`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message)
    }

    /// A 404 `not_found_error`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The same error with `details.error_code`.
    #[must_use]
    pub fn with_code(mut self, error_code: ErrorCode) -> Self {
        self.details = Some(ErrorDetails { error_code });
        self
    }
}

/// The whole error body; `request_id` equals the `request-id` response header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    #[serde(rename = "type")]
    tag: ErrorTag,
    /// What went wrong.
    pub error: ApiError,
    /// Id of the request, as in the header.
    pub request_id: RequestId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum ErrorTag {
    #[serde(rename = "error")]
    Error,
}

impl ErrorBody {
    /// Wraps an error for the wire.
    pub fn new(error: ApiError, request_id: RequestId) -> Self {
        Self { tag: ErrorTag::Error, error, request_id }
    }
}
