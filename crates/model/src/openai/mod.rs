//! The Chat Completions API, and the Responses API that says the same in other words: what vLLM, Ollama, llama.cpp's server, LM Studio and many hosted services speak, each in a way of its own.
//!
//! What is sent keeps to what all of them take; what comes is read as leniently as it can be read without guessing what was
//! meant (`tests/openai/replies`). Keys of the configuration say where an upstream wants something else.

mod arguments;
mod blocks;
mod body;
mod calls;
mod chunk;
mod decode;
mod effort;
mod failure;
#[cfg(fuzzing)]
pub mod fuzzing;
mod messages;
mod parts;
mod reply;
mod rescue;
mod responses;
mod tools;

use std::sync::Arc;

use async_stream::try_stream;
use belljar_wire::sampling::SamplingRequest;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use reqwest::Url;

use self::decode::{Asked, Decoder};
use self::reply::Reply;
use crate::config::{ChatSettings, ConfigError, Secret};
use crate::link::{self, Address, Call, Link, Patience};
use crate::upstream::{SamplingHints, SamplingStream, Upstream};

/// One upstream that speaks the Chat Completions API.
pub(crate) struct OpenAi {
    shared: Arc<Shared>,
    models: Vec<String>,
}

struct Shared {
    link: Link,
    url: Url,
    settings: ChatSettings,
}

impl OpenAi {
    /// Checks the address and the key, and makes the HTTP client. Connects to nothing.
    pub(crate) fn new(
        name: String,
        address: &Address<'_>,
        key: Option<&Secret>,
        patience: Patience,
        settings: ChatSettings,
        models: Vec<String>,
    ) -> Result<Self, ConfigError> {
        let mut url = link::checked_url(&name, address.base_url)?;
        let path = format!("{}/{}", url.path().trim_end_matches('/'), settings.dialect.path());
        url.set_path(&path);
        let headers = headers(&name, key)?;
        let link = Link::new(name, address, key, headers, patience)?;
        Ok(Self { shared: Arc::new(Shared { link, url, settings }), models })
    }
}

impl Upstream for OpenAi {
    fn name(&self) -> &str {
        &self.shared.link.name
    }

    fn sample(&self, request: SamplingRequest, hints: SamplingHints) -> SamplingStream {
        let shared = Arc::clone(&self.shared);
        Box::pin(try_stream! {
            let Shared { link, url, settings } = &*shared;
            let written = body::write(&request, &hints.files, settings)
                .map_err(|unfit| unfit.into_error(&link.name))?;
            let asked = Asked::of(&request, &hints.request_id, &written, settings);
            drop(request);
            let call = Call { url, body: written.body, header: None, refused: failure::refused };
            let response = link::send(link, &call, &hints.request_id).await?;
            drop(call);
            let mut reply = Reply::new(link, response, Decoder::new(asked))?;
            while let Some(events) = reply.next().await? {
                for event in events {
                    yield event;
                }
            }
        })
    }

    fn models(&self) -> Vec<String> {
        self.models.clone()
    }
}

/// A request as it goes out.
struct Written {
    body: Bytes,
    /// How many calls the history holds.
    calls: usize,
}

fn headers(upstream: &str, key: Option<&Secret>) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::ACCEPT, HeaderValue::from_static("text/event-stream, application/json")),
    ]);
    if let Some(key) = key {
        headers.insert(header::AUTHORIZATION, link::key_header(upstream, "Bearer ", key)?);
    }
    Ok(headers)
}
