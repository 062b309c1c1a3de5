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
mod piece;
mod reply;
mod rescue;
mod responses;
mod tools;

use std::sync::Arc;

use async_stream::try_stream;
use belljar_wire::sampling::{SamplingEvent, SamplingRequest};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use self::decode::{Asked, Decoder};
use self::reply::Reply;
use crate::config::{ChatSettings, ConfigError, Secret};
use crate::error::UpstreamError;
use crate::link::{self, Address, Answer, Call, Link, Patience, Place};
use crate::upstream::{SamplingHints, SamplingStream, Upstream};

/// One upstream that speaks the Chat Completions API.
pub(crate) struct OpenAi {
    shared: Arc<Shared>,
    models: Vec<String>,
}

struct Shared {
    link: Link,
    settings: ChatSettings,
}

impl OpenAi {
    /// Over that link.
    pub(crate) fn over(link: Link, settings: ChatSettings, models: Vec<String>) -> Self {
        Self { shared: Arc::new(Shared { link, settings }), models }
    }
}

/// Checks the address and the key, and makes the HTTP client. Connects to nothing.
pub(crate) fn link(
    name: String,
    address: &Address<'_>,
    key: Option<&Secret>,
    patience: Patience,
) -> Result<Link, ConfigError> {
    let mut root = link::checked_url(&name, address.base_url)?;
    let path = format!("{}/", root.path().trim_end_matches('/'));
    root.set_path(&path);
    let headers = headers(&name, key)?;
    Link::new(name, address, root, key, headers, patience)
}

/// The events of an answer that was recorded, and what ended them, if something did.
pub(crate) async fn reread(
    link: &Link,
    answer: Answer,
    body: &Value,
    settings: &ChatSettings,
) -> (Vec<SamplingEvent>, Option<UpstreamError>) {
    let asked = Asked::of_body(body, settings);
    let mut reply = match Reply::new(link, answer, Decoder::new(asked)) {
        Ok(reply) => reply,
        Err(error) => return (Vec::new(), Some(error)),
    };
    link::all_events(async || reply.next().await).await
}

impl Upstream for OpenAi {
    fn name(&self) -> &str {
        &self.shared.link.name
    }

    fn sample(&self, request: SamplingRequest, hints: SamplingHints) -> SamplingStream {
        let shared = Arc::clone(&self.shared);
        Box::pin(try_stream! {
            let Shared { link, settings } = &*shared;
            let written = body::write(&request, &hints.files, settings)
                .map_err(|unfit| unfit.into_error(&link.name))?;
            let asked = Asked::of(&request, &hints.request_id, &written, settings);
            drop(request);
            let call = Call {
                place: Place::of(settings.api.endpoint()), body: written.body, betas: None, refused: failure::refused,
            };
            // Boxed, it takes no memory while the reply comes.
            let answer = Box::pin(link::send(link, &call, &hints.request_id)).await?;
            drop(call);
            let mut reply = Reply::new(link, answer, Decoder::new(asked))?;
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
    /// About how many tokens the model will read.
    input_tokens: u64,
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
