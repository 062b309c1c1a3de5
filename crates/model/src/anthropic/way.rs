//! Where the Messages API stands: at its vendor, in Amazon Bedrock, or in Vertex AI. The clouds change the address, who asks, and a
//! few members of the body; the request and the reply are the same.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Url;

use crate::config::{AwsCredentials, ConfigError, GoogleCredentials, Secret, UpstreamKind};
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::link::{self, Signer};

const API_VERSION: &str = "2023-06-01";

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The vendor's own.
    Vendor,
    /// Amazon Bedrock.
    Bedrock,
    /// Vertex AI.
    Vertex,
}

impl Form {
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
}

/// The way to one upstream's calls.
pub(super) enum Way {
    Vendor {
        url: Url,
        count_url: Url,
    },
    Bedrock {
        base: Url,
    },
    Vertex {
        /// Down to `.../publishers/anthropic/models`.
        models: Url,
        count_url: Url,
    },
}

/// A way, with everything that a link is made of.
pub(super) struct Access {
    pub(super) way: Way,
    pub(super) base_url: String,
    pub(super) proxy: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) key: Option<Secret>,
    pub(super) signer: Option<Signer>,
}

impl Access {
    /// Reads what is configured; none for a kind that does not speak the Messages API.
    pub(super) fn new(upstream: &str, kind: UpstreamKind) -> Result<Option<Self>, ConfigError> {
        match kind {
            UpstreamKind::Anthropic { base_url, api_key, proxy } => {
                let way = vendor(upstream, &base_url)?;
                let mut headers = headers("text/event-stream");
                headers.insert("anthropic-version", HeaderValue::from_static(API_VERSION));
                headers.insert("x-api-key", link::key_header(upstream, "", &api_key)?);
                Ok(Some(Self { way, base_url, proxy, headers, key: Some(api_key), signer: None }))
            }
            UpstreamKind::Bedrock { base_url, region, credentials, proxy } => {
                check_region(upstream, &region)?;
                let base = link::checked_url(upstream, &base_url)?;
                let mut headers = headers("application/vnd.amazon.eventstream");
                let (key, signer) = match credentials {
                    AwsCredentials::Bearer(key) => {
                        headers.insert(header::AUTHORIZATION, link::key_header(upstream, "Bearer ", &key)?);
                        (Some(key), None)
                    }
                    AwsCredentials::Keys { access_key_id, secret_access_key, temporary_token } => {
                        let key = temporary_token.clone();
                        (key, Some(Signer::aws(region, access_key_id, secret_access_key, temporary_token)))
                    }
                };
                Ok(Some(Self { way: Way::Bedrock { base }, base_url, proxy, headers, key, signer }))
            }
            UpstreamKind::Vertex { base_url, region, project, credentials, proxy } => {
                let way = vertex(upstream, &base_url, &region, &project)?;
                let mut headers = headers("text/event-stream");
                let (key, signer) = match credentials {
                    GoogleCredentials::Token(token) => {
                        headers.insert(header::AUTHORIZATION, link::key_header(upstream, "Bearer ", &token)?);
                        (Some(token), None)
                    }
                    GoogleCredentials::ServiceAccount(json) => (None, Some(Signer::google(upstream, &json)?)),
                };
                Ok(Some(Self { way, base_url, proxy, headers, key, signer }))
            }
            UpstreamKind::Scripted { .. } | UpstreamKind::OpenAi { .. } | UpstreamKind::Recorded => Ok(None),
        }
    }
}

impl Way {
    pub(super) const fn form(&self) -> Form {
        match self {
            Self::Vendor { .. } => Form::Vendor,
            Self::Bedrock { .. } => Form::Bedrock,
            Self::Vertex { .. } => Form::Vertex,
        }
    }

    /// Where a sampling of `model` is asked for.
    pub(super) fn sampling_url(&self, upstream: &str, model: &str) -> Result<Cow<'_, Url>, UpstreamError> {
        let below = |base: &Url, path: &str| {
            let mut url = base.clone();
            url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
            Cow::Owned(url)
        };
        // A client may have chosen the name, and the address must not lead anywhere else for that.
        if !matches!(self, Self::Vendor { .. }) && model.bytes().all(|byte| byte == b'.') {
            let operator = format!("upstream `{upstream}`: `{model}` names no model");
            return Err(UpstreamError::new(UpstreamErrorKind::ModelNotFound, operator));
        }
        Ok(match self {
            Self::Vendor { url, .. } => Cow::Borrowed(url),
            Self::Bedrock { base } => {
                below(base, &format!("model/{}/invoke-with-response-stream", encoded(model, b"-_.~")))
            }
            Self::Vertex { models, .. } => below(models, &format!("{}:streamRawPredict", encoded(model, b"-_.~@"))),
        })
    }

    /// Where tokens are counted; none where they are not.
    pub(super) const fn count_url(&self) -> Option<&Url> {
        match self {
            Self::Vendor { count_url, .. } | Self::Vertex { count_url, .. } => Some(count_url),
            Self::Bedrock { .. } => None,
        }
    }
}

fn headers(accept: &'static str) -> HeaderMap {
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("accept"), HeaderValue::from_static(accept)),
    ])
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

/// `/v1/messages` below the base; a base that ends in `/v1` is taken as meant.
fn vendor(upstream: &str, base_url: &str) -> Result<Way, ConfigError> {
    let (mut url, base) = without_version(upstream, base_url)?;
    url.set_path(&format!("{base}/v1/messages"));
    let mut count_url = url.clone();
    count_url.set_path(&format!("{}/count_tokens", url.path()));
    Ok(Way::Vendor { url, count_url })
}

fn vertex(upstream: &str, base_url: &str, region: &str, project: &str) -> Result<Way, ConfigError> {
    check_region(upstream, region)?;
    // `example.com:name` is a project of an organisation.
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:".contains(&byte);
    if !project.starts_with(|c: char| c.is_ascii_alphanumeric()) || !project.bytes().all(legal) {
        return Err(cloud(upstream, "project", "is not the id of a project"));
    }
    let (mut models, base) = without_version(upstream, base_url)?;
    models.set_path(&format!("{base}/v1/projects/{project}/locations/{region}/publishers/anthropic/models"));
    let mut count_url = models.clone();
    count_url.set_path(&format!("{}/count-tokens:rawPredict", models.path()));
    Ok(Way::Vertex { models, count_url })
}

fn without_version(upstream: &str, base_url: &str) -> Result<(Url, String), ConfigError> {
    let url = link::checked_url(upstream, base_url)?;
    let base = url.path().trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base).to_owned();
    Ok((url, base))
}

fn check_region(upstream: &str, region: &str) -> Result<(), ConfigError> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if region.is_empty() || !region.bytes().all(legal) {
        return Err(cloud(upstream, "region", "is not one like `us-east-1`"));
    }
    Ok(())
}

fn cloud(upstream: &str, what: &'static str, problem: &'static str) -> ConfigError {
    ConfigError::Cloud { upstream: upstream.to_owned(), what, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_data() {
        let base = Url::parse("https://bedrock-runtime.us-east-1.amazonaws.com/").expect("an address");
        let bedrock = Way::Bedrock { base };
        let vertex =
            vertex("up", "https://eu-aiplatform.googleapis.com/v1/", "europe-west1", "my-project-1").expect("good");
        let cases = [
            (&bedrock, "anthropic.claude-v2:1", "/model/anthropic.claude-v2%3A1/invoke-with-response-stream"),
            (
                &bedrock,
                "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.x",
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.anthropic.x/invoke-with-response-stream",
            ),
            (&bedrock, "../é?#", "/model/..%2F%C3%A9%3F%23/invoke-with-response-stream"),
            (
                &vertex,
                "claude-haiku-4-5@20251001",
                "/v1/projects/my-project-1/locations/europe-west1/publishers/anthropic/models/claude-haiku-4-5@20251001:streamRawPredict",
            ),
        ];
        for (way, model, path) in cases {
            assert_eq!(way.sampling_url("up", model).expect("an address").path(), path);
        }
        for model in ["", ".", ".."] {
            let error = bedrock.sampling_url("up", model).expect_err("no model");
            assert_eq!(error.kind, UpstreamErrorKind::ModelNotFound, "{model}");
        }
    }
}
