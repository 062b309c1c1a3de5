//! Who asks, where a header that never changes does not say it: requests that are signed one by one, tokens that end.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use gcp_auth::{CustomServiceAccount, TokenProvider as _};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Url;
use serde::Deserialize;

use super::key_header;
use crate::config::{ConfigError, Secret};

/// What every request to Amazon Bedrock is signed for.
const SERVICE: &str = "bedrock";
/// What a token of Google's is asked for.
const SCOPES: [&str; 1] = ["https://www.googleapis.com/auth/cloud-platform"];

/// Adds what says who asks, to each attempt anew.
pub(crate) enum Signer {
    /// SigV4.
    Aws { region: String, credentials: Credentials },
    /// Access tokens of a service account.
    Google {
        account: Box<CustomServiceAccount>,
        /// The token that was sent last.
        sent: Mutex<Option<Secret>>,
    },
}

/// A request that cannot be signed. The text holds no secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error("the request cannot be signed: {0}")]
    Signature(String),
    #[error("no access token: {0}")]
    Refused(String),
    #[error("no access token: {0}")]
    Unreachable(String),
}

impl Signer {
    /// Signs for Amazon Bedrock.
    pub(crate) fn aws(region: String, access_key_id: String, secret: Secret, temporary_token: Option<Secret>) -> Self {
        let token = temporary_token.map(|token| token.expose().to_owned());
        let credentials = Credentials::new(access_key_id, secret.expose(), token, None, "environment");
        Self::Aws { region, credentials }
    }

    /// Fetches tokens with a service account's key. Connects to nothing yet.
    pub(crate) fn google(upstream: &str, json: &Secret) -> Result<Self, ConfigError> {
        let wrong =
            |problem| ConfigError::Cloud { upstream: upstream.to_owned(), what: "the service account", problem };
        let account: ServiceAccount =
            serde_json::from_str(json.expose()).map_err(|_| wrong("is not the JSON of a service account's key"))?;
        // Whoever made it fetches tokens there, and takes it unseen.
        let address = Url::parse(&account.token_uri).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        if address.is_none() || account.token_uri.parse::<http::Uri>().is_err() {
            return Err(wrong("has a `token_uri` that is no address"));
        }
        let account = CustomServiceAccount::from_json(json.expose())
            .map_err(|_| wrong("has a `private_key` that cannot be used, or there are no root certificates here"))?;
        Ok(Self::Google { account: Box::new(account), sent: Mutex::new(None) })
    }

    /// The headers of one request. A token that nobody has yet, or that ends within seconds, is fetched.
    pub(super) async fn headers(&self, upstream: &str, url: &Url, body: &[u8]) -> Result<HeaderMap, SignError> {
        match self {
            Self::Aws { region, credentials } => {
                signature(url, body, region, credentials).map_err(|error| SignError::Signature(error.to_string()))
            }
            Self::Google { account, sent } => {
                let token = account.token(&SCOPES).await.map_err(|error| match error {
                    // The only text of its own that it has for an answer which is no success.
                    gcp_auth::Error::Str(text) => SignError::Refused(text.to_owned()),
                    other => SignError::Unreachable(other.to_string()),
                })?;
                let token = Secret::new(token.as_str());
                let value = key_header(upstream, "Bearer ", &token)
                    .map_err(|_| SignError::Refused("it is none that a header may hold".to_owned()))?;
                *sent.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
                Ok(HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
            }
        }
    }

    /// A token that upstreams have seen and nobody else may.
    pub(super) fn token(&self) -> Option<Secret> {
        match self {
            Self::Aws { .. } => None,
            Self::Google { sent, .. } => sent.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aws { .. } => "Aws",
            Self::Google { .. } => "Google",
        })
    }
}

#[derive(Deserialize)]
struct ServiceAccount {
    token_uri: String,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// SigV4 over the method, the address, the body and the headers that say what it is.
fn signature(url: &Url, body: &[u8], region: &str, credentials: &Credentials) -> Result<HeaderMap, AnyError> {
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()?
        .into();
    let headers = [("content-type", "application/json")];
    let request = SignableRequest::new("POST", url.as_str(), headers.into_iter(), SignableBody::Bytes(body))?;
    let (instructions, _) = sign(request, &params)?.into_parts();
    let mut signed = HeaderMap::new();
    for (name, value) in instructions.headers() {
        let mut value = HeaderValue::from_str(value)?;
        value.set_sensitive(true);
        signed.insert(HeaderName::from_bytes(name.as_bytes())?, value);
    }
    Ok(signed)
}
