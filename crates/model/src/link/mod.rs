//! The way to an upstream over HTTP, whatever it speaks: addresses, keys, one call with its retries, one body within its limits.

mod body;
mod refusal;
mod send;
mod signer;
pub(crate) mod sse;

use http::{HeaderMap, HeaderValue};
use reqwest::{Client, Url};

pub(crate) use body::Body;
pub(crate) use refusal::{Refusal, Scrub};
pub(crate) use send::{Call, send};
pub(crate) use signer::Signer;

use crate::config::{ConfigError, Secret, Timeouts};

/// Where the upstream is, as configured.
pub(crate) struct Address<'a> {
    pub(crate) base_url: &'a str,
    pub(crate) proxy: Option<&'a str>,
}

/// How long to wait, and how often to ask.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) timeouts: Timeouts,
    pub(crate) retries_max: u32,
}

/// What every call to one upstream needs.
pub(crate) struct Link {
    pub(crate) name: String,
    base_url: String,
    client: Client,
    headers: HeaderMap,
    key: Option<Secret>,
    signer: Option<Signer>,
    pub(crate) timeouts: Timeouts,
    pub(crate) retries_max: u32,
}

impl Link {
    /// Makes the HTTP client. Connects to nothing.
    pub(crate) fn new(
        name: String,
        address: &Address<'_>,
        key: Option<&Secret>,
        headers: HeaderMap,
        patience: Patience,
    ) -> Result<Self, ConfigError> {
        let Patience { timeouts, retries_max } = patience;
        let client = client(&name, address.proxy, timeouts)?;
        let base_url = address.base_url.trim_end_matches('/').to_owned();
        Ok(Self { name, base_url, client, headers, key: key.cloned(), signer: None, timeouts, retries_max })
    }

    /// The same, with every request signed.
    pub(crate) fn signed(self, signer: Option<Signer>) -> Self {
        Self { signer, ..self }
    }

    /// What nobody may read in an upstream's texts.
    pub(crate) fn scrub(&self) -> Scrub<'_> {
        Scrub {
            key: self.key.as_ref().map_or("", Secret::expose),
            token: self.signer.as_ref().and_then(Signer::token),
            base_url: &self.base_url,
        }
    }
}

/// A base address, checked.
pub(crate) fn checked_url(upstream: &str, base_url: &str) -> Result<Url, ConfigError> {
    let wrong = |problem| ConfigError::Address { upstream: upstream.to_owned(), key: "base_url", problem };
    let url = Url::parse(base_url).map_err(|_| wrong("not a URL; expected one like `https://host/`"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("not an http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("credentials do not belong in a URL; use `api_key_env`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a query or a fragment"));
    }
    Ok(url)
}

/// A header's value that holds a key, behind `scheme`.
pub(crate) fn key_header(upstream: &str, scheme: &str, key: &Secret) -> Result<HeaderValue, ConfigError> {
    let wrong = || ConfigError::Key { upstream: upstream.to_owned() };
    if key.expose().is_empty() {
        return Err(wrong());
    }
    let mut value = HeaderValue::from_str(&format!("{scheme}{}", key.expose())).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok(value)
}

fn client(upstream: &str, proxy: Option<&str>, timeouts: Timeouts) -> Result<Client, ConfigError> {
    // Fails when some provider is installed already, and then that one serves.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("belljar/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(timeouts.connect_max)
        .no_proxy();
    if let Some(proxy) = proxy {
        let proxy = reqwest::Proxy::all(proxy).map_err(|_| ConfigError::Address {
            upstream: upstream.to_owned(),
            key: "proxy",
            problem: "not a proxy's URL; expected one like `http://host:3128`",
        })?;
        builder = builder.proxy(proxy);
    }
    builder
        .build()
        .map_err(|error| ConfigError::Client { upstream: upstream.to_owned(), problem: send::causes(&error) })
}
