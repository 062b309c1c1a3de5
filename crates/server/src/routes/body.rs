//! Reading a JSON body: typed, bounded, and not for ever.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use belljar_wire::error::{ApiError, ErrorCode, ErrorKind};
use belljar_wire::read::Brief;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use crate::failure::Failure;

/// Silence within a body after which the request is given up.
const BODY_SILENCE_MAX: Duration = Duration::from_secs(60);

/// Reads a JSON body of at most `bytes_max` bytes.
///
/// # Errors
/// Another content type (400), more bytes (413, wire.md §2.8), a body that stops coming (408).
pub async fn read_json(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Bytes, Failure> {
    require_json(headers)?;
    read(headers, body, bytes_max).await
}

/// Reads any body of at most `bytes_max` bytes.
pub async fn read(headers: &HeaderMap, mut body: Body, bytes_max: usize) -> Result<Bytes, Failure> {
    let announced = announced_bytes(headers);
    if announced.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large(bytes_max));
    }
    let mut collected = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(BODY_SILENCE_MAX, body.frame()).await.map_err(|_| {
            let error = ApiError::invalid("The request body stopped coming").with_code(ErrorCode::RequestBodyTimeout);
            Failure::with_status(error, StatusCode::REQUEST_TIMEOUT)
        })?;
        let Some(frame) = frame else { return Ok(collected.freeze()) };
        let frame = frame.map_err(|_| Failure::from(ApiError::invalid("The request body could not be read")))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > bytes_max - collected.len() {
            return Err(too_large(bytes_max));
        }
        collected.extend_from_slice(&data);
    }
}

/// A body as a reader that fails when it is silent for too long, so that whoever holds something for it lets go.
pub fn reader(body: Body) -> impl AsyncRead + Send {
    StreamReader::new(stream::unfold(body.into_data_stream(), |mut data| async move {
        let chunk = match tokio::time::timeout(BODY_SILENCE_MAX, data.next()).await {
            Ok(chunk) => chunk?.map_err(io::Error::other),
            Err(_elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, "The request body stopped coming")),
        };
        Some((chunk, data))
    }))
}

/// `content-length`, when the client says it.
pub fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Refuses a body that does not say that it is JSON, or says that it is in another character set than JSON has.
pub fn require_json(headers: &HeaderMap) -> Result<(), Failure> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    if !essence.eq_ignore_ascii_case("application/json") {
        let found = Brief(essence);
        return Err(ApiError::invalid(format!("content-type: expected application/json, found \"{found}\"")).into());
    }
    let charsets = parts.filter_map(|part| part.split_once('='));
    let mut charsets = charsets.filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let is_utf8 = |charset: &str| ["utf-8", "utf8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known));
    match charsets.find(|(_, charset)| !is_utf8(charset.trim().trim_matches('"'))) {
        None => Ok(()),
        Some((_, charset)) => {
            let text =
                format!("content-type: a request body is UTF-8, not \"{}\"", Brief(charset.trim().trim_matches('"')));
            Err(ApiError::invalid(text).with_code(ErrorCode::UnsupportedCharset).into())
        }
    }
}

/// Refuses a compressed body, for every route: what it is would have to be known before how long it is (wire.md §2.6).
pub async fn refuse_compressed(request: Request, next: Next) -> Result<Response, Failure> {
    for value in request.headers().get_all(CONTENT_ENCODING) {
        let text = String::from_utf8_lossy(value.as_bytes());
        let codings = text.split(',').map(str::trim).filter(|coding| !coding.is_empty());
        if let Some(coding) = codings.into_iter().find(|coding| !coding.eq_ignore_ascii_case("identity")) {
            let text = format!("content-encoding: \"{}\" is not supported; send the body as it is", Brief(coding));
            return Err(ApiError::invalid(text).with_code(ErrorCode::RequestBodyEncodingUnsupported).into());
        }
    }
    Ok(next.run(request).await)
}

/// 413 (wire.md §19 row 40).
pub fn too_large(bytes_max: usize) -> Failure {
    let text = format!("Request exceeds the maximum size of {bytes_max} bytes");
    ApiError::new(ErrorKind::RequestTooLarge, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test(start_paused = true)]
    async fn a_silent_request_is_told_so_in_the_sdks_code() {
        let said = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"half"))]);
        let body = Body::from_stream(said.chain(stream::pending()));
        let failure = read(&HeaderMap::new(), body, 1000).await.expect_err("it never ends");
        let details = failure.into_error().details.map(|details| details.error_code);
        assert_eq!(details, Some(ErrorCode::RequestBodyTimeout));
    }

    #[test]
    fn json_is_utf_8() {
        let code = |content_type: &'static str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, http::HeaderValue::from_static(content_type))]);
            let failure = require_json(&headers).err()?;
            Some(failure.into_error().details.map(|details| details.error_code))
        };
        for fine in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\"; x=y"] {
            assert_eq!(code(fine), None, "{fine}");
        }
        assert_eq!(code("application/json; charset=latin1"), Some(Some(ErrorCode::UnsupportedCharset)));
        assert_eq!(code("text/plain; charset=utf-8"), Some(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_body_is_an_error_in_time() {
        let said = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"half"))]);
        let mut reader = Box::pin(reader(Body::from_stream(said.chain(stream::pending()))));
        let started = tokio::time::Instant::now();
        let mut found = Vec::new();
        let error = reader.read_to_end(&mut found).await.expect_err("it never ends");
        assert_eq!((error.kind(), found.as_slice()), (io::ErrorKind::TimedOut, b"half".as_slice()));
        assert_eq!(started.elapsed(), BODY_SILENCE_MAX);
    }
}
