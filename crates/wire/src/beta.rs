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
            Some(other) => Err(ApiError::invalid(format!(
                "anthropic-version: \"{}\" is not a valid version",
                Brief(other)
            ))),
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
    /// A value that is neither known nor of the form `name-20YY-MM-DD` (wire.md §19 row 2). Well-formed unknown values are
    /// accepted, because the SDKs add new ones faster than a self-hosted server is upgraded.
    pub fn read<'a>(headers: impl IntoIterator<Item = &'a str>) -> Result<Self, ApiError> {
        let values = headers
            .into_iter()
            .flat_map(|header| header.split(','))
            .map(str::trim);
        let values: Vec<String> = values
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect();
        let unexpected: Vec<String> = values
            .iter()
            .filter(|value| !is_dated(value))
            .map(|value| format!("`{}`", Brief(value)))
            .collect();
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

/// `name-20YY-MM-DD`, the form that every beta value has.
fn is_dated(value: &str) -> bool {
    let Some(split) = value.len().checked_sub("-2026-01-01".len()) else {
        return false;
    };
    let (name, date) = (value.as_bytes().get(..split), value.as_bytes().get(split..));
    let (Some(name), Some(date)) = (name, date) else {
        return false;
    };
    let name_ok = !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
    let date_ok = date
        .iter()
        .zip(b"-20dd-dd-dd")
        .all(|(byte, form)| match form {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        });
    name_ok && date_ok && value.len() <= 128
}
