//! An HTTP reply that is no success, as it came, and what nobody may read in it.

use std::time::Duration;

use belljar_wire::read::Brief;
use http::HeaderMap;

use crate::config::Secret;

/// Longest message of the upstream that is passed on, in characters.
const MESSAGE_CHARS_MAX: usize = 2000;

/// An HTTP reply that is no success.
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    /// `x-should-retry: false`.
    final_word: bool,
    request_id: Option<String>,
    /// Amazon's name for what is wrong, as `ThrottlingException`.
    pub(crate) exception: Option<String>,
    /// As much of the body as is read.
    pub(crate) body: Vec<u8>,
}

impl Refusal {
    /// Reads the headers; the body is added by whoever reads it.
    pub(crate) fn new(status: u16, headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            status,
            retry_after: retry_after(headers),
            final_word: text("x-should-retry") == Some("false"),
            exception: text("x-amzn-errortype").and_then(|name| name.split(':').next()).map(str::to_owned),
            request_id: text("request-id")
                .or(text("x-request-id"))
                .or(text("x-amzn-requestid"))
                .map(|id| Brief(id).to_string()),
            body: Vec::new(),
        }
    }

    /// Whether asking again may help: nothing of a reply has been seen yet.
    pub(crate) fn is_transient(&self) -> bool {
        !self.final_word && self.status != 501 && matches!(self.status, 408 | 429 | 500..=599)
    }

    /// The operator's line about it.
    pub(crate) fn line(&self, upstream: &str, message: &str) -> String {
        let id = self.request_id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
        format!("upstream `{upstream}`: HTTP {}{id}: {message}", self.status)
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

/// Takes what nobody may read out of an upstream's texts.
pub(crate) struct Scrub<'a> {
    pub(crate) key: &'a str,
    /// A token that was fetched, and sent last.
    pub(crate) token: Option<Secret>,
    pub(crate) base_url: &'a str,
}

impl Scrub<'_> {
    /// The text without the key and the address, and not endless.
    pub(crate) fn clean(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        let token = self.token.as_ref().map_or("", Secret::expose);
        for secret in [self.key, token, self.base_url] {
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

    const SCRUB: Scrub<'_> = Scrub { key: "sk-secret", token: None, base_url: "https://up.example" };

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
