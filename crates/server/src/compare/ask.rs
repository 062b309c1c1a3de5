//! Asking one server.

use std::time::Duration;

use belljar_wire::sse;
use futures_util::StreamExt as _;
use reqwest::{Client, Proxy, Url};
use serde_json::Value;

use super::answer::{Answer, Reply};
use super::questions::Question;
use crate::bench::stopwatch::Stopwatch;
use crate::exit::Exit;

/// Most bytes of one reply.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// The API version of requests that name none.
const API_VERSION: &str = "2023-06-01";

/// One server, and how it is spoken to.
pub struct Server {
    /// As the operator named it.
    pub name: String,
    url: Url,
    key: String,
    client: Client,
}

impl Server {
    /// Checks the address; connects to nothing.
    pub fn new(base_url: &str, key: String, wait: Duration, proxy: Option<&str>) -> Result<Self, Exit> {
        let url = Url::parse(base_url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(mut url) = url.filter(|url| url.username().is_empty() && url.password().is_none()) else {
            return Err(Exit::usage("--base-url is an http or https URL without credentials".to_owned()));
        };
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{}/v1/messages", base.strip_suffix("/v1").unwrap_or(&base)));
        url.set_query(None);
        // Without a provider no client can be built, and a second installation is refused: both are fine here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("belljar/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(wait)
            .no_proxy();
        if let Some(proxy) = proxy {
            let proxy = Proxy::https(proxy).map_err(|_| Exit::usage("HTTPS_PROXY is no proxy's URL".to_owned()))?;
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|error| Exit::cannot(error.to_string()))?;
        Ok(Self { name: base_url.to_owned(), url, key, client })
    }

    /// Asks, and times the answer. The error's text has no key in it.
    pub async fn ask(&self, question: &Question, body: &Value) -> Result<Answer, String> {
        let mut request = self.client.post(self.url.clone()).header("x-api-key", &self.key);
        if !question.headers.iter().any(|(name, _)| name == "anthropic-version") {
            request = request.header("anthropic-version", API_VERSION);
        }
        for (name, value) in &question.headers {
            request = request.header(name, value);
        }
        let body = body.to_string();
        let request = request.header("content-type", "application/json").body(body);
        let watch = Stopwatch::start();
        let response = request.send().await.map_err(told)?;
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let is_stream = content_type.is_some_and(|value| value.starts_with("text/event-stream"));
        let (mut bytes, mut first_event) = (Vec::new(), None);
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece.map_err(told)?);
            if bytes.len() > REPLY_BYTES_MAX {
                return Err(format!("the reply is longer than {REPLY_BYTES_MAX} bytes"));
            }
            if first_event.is_none() && (!is_stream || has_an_event(&bytes)) {
                first_event = Some(watch.elapsed());
            }
        }
        let total = Some(watch.elapsed());
        let text = String::from_utf8(bytes).map_err(|_| "the reply is not UTF-8".to_owned())?;
        let reply = match is_stream {
            true => Reply::Stream(sse::read(&text)?),
            false => Reply::Plain(serde_json::from_str(&text).unwrap_or_default()),
        };
        Ok(Answer { status, reply, first_event, total })
    }
}

fn has_an_event(bytes: &[u8]) -> bool {
    let ends = |pair: &[u8]| bytes.windows(pair.len()).any(|window| window == pair);
    ends(b"\n\n") || ends(b"\r\n\r\n")
}

/// The error with its causes, without the address: that may hold what is nobody's business.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
