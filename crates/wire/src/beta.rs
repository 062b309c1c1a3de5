//! `anthropic-beta` and `anthropic-version` (wire.md §2.3, §2.4).

use crate::error::ApiError;
use crate::read::Brief;

/// The API version a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiVersion {
    /// `2023-01-01`.
    V20230101,
    /// `2023-06-01`.
    V20230601,
    /// `2026-10-21`: sampling parameters are gone, citations and documents are stricter (wire.md §2.3).
    V20261021,
}

impl ApiVersion {
    /// Reads the header's value.
    pub fn read(value: Option<&str>) -> Result<Self, ApiError> {
        match value {
            Some("2023-01-01") => Ok(Self::V20230101),
            Some("2023-06-01") => Ok(Self::V20230601),
            Some("2026-10-21") => Ok(Self::V20261021),
            None => Err(ApiError::invalid("anthropic-version: header is required")),
            Some(other) => {
                Err(ApiError::invalid(format!("anthropic-version: \"{}\" is not a valid version", Brief(other))))
            }
        }
    }
}

/// The beta values of one request that change what this server does; the others are accepted and kept for the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Betas {
    values: Vec<String>,
}

impl Betas {
    /// Reads every `anthropic-beta` header of a request; each may hold several values, joined by commas.
    ///
    /// # Errors
    /// A value that does not end in a date (wire.md §19 row 2). Well-formed unknown values are
    /// accepted, because the SDKs add new ones faster than a self-hosted server is upgraded.
    pub fn read<'a>(headers: impl IntoIterator<Item = &'a str>) -> Result<Self, ApiError> {
        let values = headers.into_iter().flat_map(|header| header.split(',')).map(str::trim);
        let values: Vec<String> = values.filter(|value| !value.is_empty()).map(str::to_owned).collect();
        let unexpected: Vec<String> =
            values.iter().filter(|value| !is_dated(value)).map(|value| format!("`{}`", Brief(value))).collect();
        if unexpected.is_empty() {
            return Ok(Self { values });
        }
        Err(ApiError::invalid(format!(
            "Unexpected value(s) {} for the `anthropic-beta` header. Please consult our documentation at \
             platform.claude.com/docs or try again without the header.",
            unexpected.join(", ")
        )))
    }

    /// Whether the request carries `value`.
    pub fn has(&self, value: &str) -> bool {
        self.values.iter().any(|held| held == value)
    }

    /// The values as they came, in order.
    pub fn values(&self) -> &[String] {
        &self.values
    }
}

/// `name-20YY-MM-DD`, the form of nearly every beta value, or `name-20YYMMDD`, as in Claude Code's `claude-code-20250219`.
fn is_dated(value: &str) -> bool {
    let name = strip_date(value.as_bytes(), b"-20dd-dd-dd").or_else(|| strip_date(value.as_bytes(), b"-20dddddd"));
    let legal = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    value.len() <= 128 && name.is_some_and(|name| !name.is_empty() && name.iter().all(legal))
}

/// What stands before a date of that `form`, where `d` is any digit.
fn strip_date<'v>(value: &'v [u8], form: &[u8]) -> Option<&'v [u8]> {
    let (name, date) = value.split_at_checked(value.len().checked_sub(form.len())?)?;
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'd' => byte.is_ascii_digit(),
        other => byte == other,
    };
    date.iter().zip(form).all(fits).then_some(name)
}
