//! Where the Messages API stands: at its vendor, in Amazon Bedrock, or in Vertex AI. The clouds change the path, and a few members of
//! the body; the request and the reply are the same.

use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::link::Place;
use crate::recording::Endpoint;

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The vendor's own.
    Vendor,
    /// Amazon Bedrock.
    Bedrock,
    /// Vertex AI.
    Vertex,
}

impl Way {
    /// The clouds take the version in the body.
    pub(super) const fn version_in_body(self) -> Option<&'static str> {
        match self {
            Self::Vendor => None,
            Self::Bedrock => Some("bedrock-2023-05-31"),
            Self::Vertex => Some("vertex-2023-10-16"),
        }
    }

    pub(super) const fn betas_in_body(self) -> bool {
        matches!(self, Self::Bedrock)
    }

    /// In the clouds the address names the model.
    pub(super) const fn model_in_body(self) -> bool {
        matches!(self, Self::Vendor)
    }

    /// In Bedrock the address says that it is a stream.
    pub(super) const fn stream_in_body(self) -> bool {
        !matches!(self, Self::Bedrock)
    }

    /// Where a sampling of `model` is asked for.
    pub(super) fn sampling(self, upstream: &str, model: &str) -> Result<Place, UpstreamError> {
        // A client may have chosen the name, and the address must not lead anywhere else for that.
        if self != Self::Vendor && model.bytes().all(|byte| byte == b'.') {
            let operator = format!("upstream `{upstream}`: `{model}` names no model");
            return Err(UpstreamError::new(UpstreamErrorKind::ModelNotFound, operator));
        }
        let endpoint = Endpoint::Messages;
        Ok(match self {
            Self::Vendor => Place::of(endpoint),
            Self::Bedrock => {
                Place::at(endpoint, format!("model/{}/invoke-with-response-stream", encoded(model, b"-_.~")))
            }
            Self::Vertex => Place::at(endpoint, format!("{}:streamRawPredict", encoded(model, b"-_.~@"))),
        })
    }

    /// Where tokens are counted; none where they are not.
    pub(super) fn count(self) -> Option<Place> {
        let endpoint = Endpoint::CountTokens;
        match self {
            Self::Vendor => Some(Place::of(endpoint)),
            Self::Bedrock => None,
            Self::Vertex => Some(Place::at(endpoint, "count-tokens:rawPredict")),
        }
    }
}

/// One segment of a path: everything is escaped but letters, digits and `kept`. ARNs hold colons and slashes.
fn encoded(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_data() {
        let cases = [
            (Way::Vendor, "..", "messages"),
            (Way::Bedrock, "anthropic.claude-v2:1", "model/anthropic.claude-v2%3A1/invoke-with-response-stream"),
            (
                Way::Bedrock,
                "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.x",
                "model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.anthropic.x/invoke-with-response-stream",
            ),
            (Way::Bedrock, "../é?#", "model/..%2F%C3%A9%3F%23/invoke-with-response-stream"),
            (Way::Vertex, "claude-haiku-4-5@20251001", "claude-haiku-4-5@20251001:streamRawPredict"),
        ];
        for (way, model, path) in cases {
            assert_eq!(way.sampling("up", model).expect("a place").path, path);
        }
        for (way, model) in
            [Way::Bedrock, Way::Vertex].into_iter().flat_map(|way| ["", ".", ".."].map(|model| (way, model)))
        {
            let error = way.sampling("up", model).map(|place| place.path).expect_err("no model");
            assert_eq!(error.kind, UpstreamErrorKind::ModelNotFound, "{model}");
        }
    }
}
