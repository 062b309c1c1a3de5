//! The floor: a server on the same library that sends bytes it was given, and does nothing else.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::stream;

/// A running floor; dropping it ends it.
pub struct Floor {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Floor {
    /// Starts one that answers every request with the events of `reply`, a whole HTTP reply.
    pub fn start(reply: Vec<u8>) -> super::Outcome<Self> {
        let body = reply.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no head")? + 4;
        let events = dechunk(&reply[body..]);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let handler = move |body: Bytes| async move { answer(&body, events.clone()) };
        let router = Router::new().route("/v1/messages", post(handler));
        runtime.spawn(async move {
            {
                use axum::serve::ListenerExt as _;
                let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
                axum::serve(listener, router).await
            }
        });
        Ok(Self { address, _runtime: runtime })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn answer(request: &Bytes, events: Bytes) -> Response {
    // Read as JSON, as any server of this endpoint must.
    let parsed: Result<serde_json::Value, _> = serde_json::from_slice(request);
    match parsed {
        Ok(_) => {
            let whole = stream::once(async move { Ok::<_, std::convert::Infallible>(events) });
            ([("content-type", "text/event-stream; charset=utf-8")], Body::from_stream(whole)).into_response()
        }
        Err(error) => error.to_string().into_response(),
    }
}

/// The payload of a chunked body.
fn dechunk(mut body: &[u8]) -> Bytes {
    let mut payload = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let length =
            std::str::from_utf8(&body[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok()).unwrap_or(0);
        if length == 0 {
            break;
        }
        payload.extend_from_slice(&body[end + 2..end + 2 + length]);
        body = &body[end + 2 + length + 2..];
    }
    payload.into()
}
