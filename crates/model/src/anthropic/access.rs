//! Who asks, and where: everything that a link to an upstream of the Messages API is made of.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Url;

use super::way::Way;
use crate::config::{AwsCredentials, ConfigError, GoogleCredentials, Secret};
use crate::link::{self, Address, Link, Patience, Signer};
use crate::recording::Tape;

const API_VERSION: &str = "2023-06-01";

/// A way, with everything that its link is made of.
pub(crate) struct Access<'a> {
    pub(super) way: Way,
    address: Address<'a>,
    root: Url,
    headers: HeaderMap,
    key: Option<Secret>,
    signer: Option<Signer>,
    tape: Option<Arc<Tape>>,
}

impl<'a> Access<'a> {
    /// To the vendor's own. Its calls are kept on `tape`; those of the clouds are not, because a body there does not name the model.
    ///
    /// # Errors
    /// What is wrong with the address or the key. So with the others.
    pub(crate) fn vendor(
        upstream: &str,
        address: Address<'a>,
        key: &Secret,
        tape: Option<Arc<Tape>>,
    ) -> Result<Self, ConfigError> {
        let root = below_version(upstream, address.base_url, "")?;
        let mut headers = headers("text/event-stream");
        headers.insert("anthropic-version", HeaderValue::from_static(API_VERSION));
        headers.insert("x-api-key", link::key_header(upstream, "", key)?);
        Ok(Self { way: Way::Vendor, address, root, headers, key: Some(key.clone()), signer: None, tape })
    }

    /// To Amazon Bedrock.
    pub(crate) fn bedrock(
        upstream: &str,
        address: Address<'a>,
        region: String,
        credentials: AwsCredentials,
    ) -> Result<Self, ConfigError> {
        check_region(upstream, &region)?;
        let mut root = link::checked_url(upstream, address.base_url)?;
        let path = format!("{}/", root.path().trim_end_matches('/'));
        root.set_path(&path);
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
        Ok(Self { way: Way::Bedrock, address, root, headers, key, signer, tape: None })
    }

    /// To Vertex AI.
    pub(crate) fn vertex(
        upstream: &str,
        address: Address<'a>,
        region: &str,
        project: &str,
        credentials: GoogleCredentials,
    ) -> Result<Self, ConfigError> {
        check_region(upstream, region)?;
        // `example.com:name` is a project of an organisation.
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:".contains(&byte);
        if !project.starts_with(|c: char| c.is_ascii_alphanumeric()) || !project.bytes().all(legal) {
            return Err(cloud(upstream, "project", "is not the id of a project"));
        }
        let models = format!("projects/{project}/locations/{region}/publishers/anthropic/models/");
        let root = below_version(upstream, address.base_url, &models)?;
        let mut headers = headers("text/event-stream");
        let (key, signer) = match credentials {
            GoogleCredentials::Token(token) => {
                headers.insert(header::AUTHORIZATION, link::key_header(upstream, "Bearer ", &token)?);
                (Some(token), None)
            }
            GoogleCredentials::ServiceAccount(json) => (None, Some(Signer::google(upstream, &json)?)),
        };
        Ok(Self { way: Way::Vertex, address, root, headers, key, signer, tape: None })
    }

    /// Makes the HTTP client. Connects to nothing.
    pub(super) fn into_link(self, name: String, patience: Patience) -> Result<Link, ConfigError> {
        let Self { way: _, address, root, headers, key, signer, tape } = self;
        Ok(Link::new(name, &address, root, key.as_ref(), headers, patience)?.signed(signer).taped(tape))
    }
}

fn headers(accept: &'static str) -> HeaderMap {
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("accept"), HeaderValue::from_static(accept)),
    ])
}

/// `/v1/` below the base, and `path` below that; a base that ends in `/v1` is taken as meant.
fn below_version(upstream: &str, base_url: &str, path: &str) -> Result<Url, ConfigError> {
    let mut url = link::checked_url(upstream, base_url)?;
    let base = url.path().trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base);
    let path = format!("{base}/v1/{path}");
    url.set_path(&path);
    Ok(url)
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
    fn roots_as_data() {
        let cases = [
            ("https://h", "https://h/v1/"),
            ("https://h/v1/", "https://h/v1/"),
            ("https://h/behind/v1", "https://h/behind/v1/"),
            ("https://h/v10/", "https://h/v10/v1/"),
        ];
        let below = "projects/my-project-1/locations/europe-west1/publishers/anthropic/models/";
        for (base_url, root) in cases {
            let address = || Address { base_url, proxy: None };
            let key = Secret::new("hush");
            let vendor = Access::vendor("up", address(), &key, None).expect("good");
            assert_eq!(vendor.root.as_str(), root);
            let token = GoogleCredentials::Token(key.clone());
            let vertex = Access::vertex("up", address(), "europe-west1", "my-project-1", token).expect("good");
            assert_eq!(vertex.root.as_str(), format!("{root}{below}"));
            let credentials = AwsCredentials::Bearer(key);
            let bedrock = Access::bedrock("up", address(), "us-east-1".to_owned(), credentials).expect("good");
            assert_eq!(bedrock.root.as_str(), format!("{}/", base_url.trim_end_matches('/')));
        }
    }
}
