//! What a request's headers say about it: kept with a batch, whose requests run when its own has long been answered.

use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::error::ApiError;
use belljar_wire::read::Brief;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

/// The headers that decide what a Messages request means, as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    version: Option<String>,
    betas: Vec<String>,
    /// `belljar-script`: the script that the scripted model is to play.
    pub script: Option<String>,
    /// `belljar-live-output`.
    #[serde(default)]
    live_output: Option<String>,
}

/// What is kept of it with a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AskedOfBatch {
    /// The headers.
    #[serde(flatten)]
    pub asked: Asked,
    /// The models that the key which made the batch might name; without any, all. What a key may do is looked at when it is used:
    /// a batch outlives its key, and so does this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
}

impl Asked {
    /// Takes them out of all headers.
    pub fn of(headers: &HeaderMap) -> Self {
        // Lossy: a value that is no text is read as one that is unknown, and refused.
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let one = |name| headers.get(name).map(text);
        Self {
            version: one("anthropic-version"),
            betas: headers.get_all("anthropic-beta").iter().map(text).collect(),
            script: one("belljar-script"),
            live_output: one("belljar-live-output"),
        }
    }

    /// Whether a stream is to tell what running code writes.
    pub fn wants_live_output(&self) -> bool {
        self.live_output.as_deref() == Some("1")
    }

    /// Reads them.
    ///
    /// # Errors
    /// A `belljar-live-output` that is neither `1` nor `0`.
    /// No version or an unknown one; a beta value that is none (wire.md §2.3, §19 row 2).
    pub fn read(&self) -> Result<(ApiVersion, Betas), ApiError> {
        if let Some(other) = self.live_output.as_deref().filter(|value| !matches!(*value, "0" | "1")) {
            let text = format!("belljar-live-output: expected 1 or 0, found \"{}\"", Brief(other));
            return Err(ApiError::invalid(text));
        }
        let betas = Betas::read(self.betas.iter().map(String::as_str))?;
        Ok((ApiVersion::read(self.version.as_deref())?, betas))
    }
}
