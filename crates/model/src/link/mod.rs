//! The way to an upstream over HTTP, whatever it speaks: addresses, keys, one call with its retries, one body within its limits. In
//! place of the network there may be a recording; above this room, nobody can tell.

mod alarm;
mod answer;
mod body;
mod gather;
mod refusal;
mod send;
mod signer;
pub(crate) mod sse;

use std::sync::Arc;

use belljar_wire::sampling::SamplingEvent;
use http::{HeaderMap, HeaderValue};
use reqwest::{Client, Url};

pub(crate) use answer::{Answer, Broken, Pieces};
pub(crate) use body::Body;
pub(crate) use refusal::{Refusal, Scrub};
pub(crate) use send::{Call, Place, send};
pub(crate) use signer::Signer;

use crate::config::{ConfigError, Secret, Timeouts};
use crate::error::UpstreamError;
use crate::recording::{Replay, Tape};

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
    /// What nobody may read.
    base_url: String,
    key: Option<Secret>,
    transport: Transport,
    pub(crate) timeouts: Timeouts,
    pub(crate) retries_max: u32,
}

/// Where calls go.
enum Transport {
    Network(Box<Network>),
    Recording(Arc<Replay>),
    Nothing,
}

/// An upstream that is asked over HTTP.
struct Network {
    client: Client,
    headers: HeaderMap,
    /// What stands before the path of a place, with the slash.
    root: Url,
    /// Says who asks, where the headers do not.
    signer: Option<Signer>,
    /// Where what is said is kept, too.
    tape: Option<Arc<Tape>>,
}

impl Link {
    /// Makes the HTTP client. Connects to nothing. `root` is what stands before a place's path.
    pub(crate) fn new(
        name: String,
        address: &Address<'_>,
        root: Url,
        key: Option<&Secret>,
        headers: HeaderMap,
        patience: Patience,
    ) -> Result<Self, ConfigError> {
        let Patience { timeouts, retries_max } = patience;
        let client = client(&name, address.proxy, timeouts)?;
        let base_url = address.base_url.trim_end_matches('/').to_owned();
        let transport = Transport::Network(Box::new(Network { client, headers, root, signer: None, tape: None }));
        Ok(Self { name, base_url, key: key.cloned(), transport, timeouts, retries_max })
    }

    /// A link that is answered by a recording.
    pub(crate) fn replaying(name: String, replay: Arc<Replay>, timeouts: Timeouts) -> Self {
        let transport = Transport::Recording(replay);
        Self { name, base_url: String::new(), key: None, transport, timeouts, retries_max: 0 }
    }

    /// A link over which nothing is sent: for reading what was.
    pub(crate) fn rereading(name: String, timeouts: Timeouts) -> Self {
        Self { name, base_url: String::new(), key: None, transport: Transport::Nothing, timeouts, retries_max: 0 }
    }

    /// The same link, with every request signed.
    #[must_use]
    pub(crate) fn signed(mut self, signer: Option<Signer>) -> Self {
        if let Transport::Network(network) = &mut self.transport {
            network.signer = signer;
        }
        self
    }

    /// The same link, with what is said over it kept on a tape. A recording is not recorded again.
    #[must_use]
    pub(crate) fn taped(mut self, tape: Option<Arc<Tape>>) -> Self {
        if let Transport::Network(network) = &mut self.transport {
            network.tape = tape;
        }
        self
    }

    /// What nobody may read in an upstream's texts.
    pub(crate) fn scrub(&self) -> Scrub<'_> {
        Scrub {
            key: self.key.as_ref().map_or("", Secret::expose),
            token: match &self.transport {
                Transport::Network(network) => network.signer.as_ref().and_then(Signer::token),
                Transport::Recording(_) | Transport::Nothing => None,
            },
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

impl Network {
    fn url(&self, place: &Place) -> Url {
        let mut url = self.root.clone();
        url.set_path(&format!("{}{}", self.root.path(), place.path));
        url
    }
}

/// The events of a reply that is read to its end, and what ended it, if something did.
pub(crate) async fn all_events(
    mut next: impl AsyncFnMut() -> Result<Option<Vec<SamplingEvent>>, UpstreamError>,
) -> (Vec<SamplingEvent>, Option<UpstreamError>) {
    let mut all = Vec::new();
    loop {
        match next().await {
            Ok(Some(events)) => all.extend(events),
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
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
