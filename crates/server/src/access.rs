//! Who asks: credentials to principal, and the two layers that every request passes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use belljar_ids::RequestId;
use belljar_store::{KeyHash, WorkspaceId};
use belljar_wire::error::{ApiError, ErrorKind};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue};

use crate::app::App;
use crate::failure::Failure;
use crate::principal::{Access, LOCAL_WORKSPACE, Principal, isolation_of};
use crate::random::OsIds;

/// [`LOCAL_WORKSPACE`], as a workspace.
pub fn local_workspace() -> Result<WorkspaceId, Failure> {
    LOCAL_WORKSPACE.parse().map_err(|error| Failure::internal("workspace", &error))
}

/// Gives each request its id, and each failure its body.
pub async fn identify(mut request: Request, next: Next) -> Response {
    let request_id = RequestId::mint(&mut OsIds);
    request.extensions_mut().insert(request_id.clone());
    let mut response = next.run(request).await;
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        response = failure.reply(&request_id);
    } else if response.status().is_client_error() || response.status().is_server_error() {
        // Refused before one of our handlers was reached, by the framework: give it the shape that clients know.
        response = Failure::of_framework(response.status()).reply(&request_id);
    }
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        response.headers_mut().insert("request-id", value);
    }
    response
}

/// Lets a request pass when its credentials are good.
///
/// # Errors
/// 401 without or with bad credentials (wire.md §19 row 1); 403 when a server without keys is reached under a name that is not
/// this machine's, which is how a web page would do it.
pub async fn authenticate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Result<Response, Failure> {
    let key = credential(request.headers()).ok_or_else(|| {
        let text = "x-api-key header is required";
        Failure::from(ApiError::new(ErrorKind::Authentication, text))
    })?;
    let principal = match app.access {
        Access::Open => {
            refuse_foreign_host(request.headers())?;
            Principal { workspace: local_workspace()?, isolation: None }
        }
        Access::Keys => {
            let found = app
                .store
                .authenticate(KeyHash::of(key))
                .await
                .map_err(|error| Failure::internal("authenticate", &error))?;
            let found =
                found.ok_or_else(|| Failure::from(ApiError::new(ErrorKind::Authentication, "invalid x-api-key")))?;
            Principal { workspace: found.workspace, isolation: found.isolation.map(isolation_of) }
        }
    };
    request.extensions_mut().insert(principal);
    Ok(next.run(request).await)
}

/// The key of a request: `x-api-key`, or `Authorization: Bearer` (wire.md §2.2), whose scheme has no case.
fn credential(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let bearer = || {
        let (scheme, key) = text(AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key)
    };
    text("x-api-key").or_else(bearer).map(str::trim).filter(|key| !key.is_empty())
}

/// A browser that was lured here names the page's host, not ours.
fn refuse_foreign_host(headers: &HeaderMap) -> Result<(), Failure> {
    let host = headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    match name {
        "localhost" | "127.0.0.1" | "[::1]" => Ok(()),
        _ => {
            let text = "this server has no keys and answers only to requests for localhost";
            Err(Failure::from(ApiError::new(ErrorKind::Permission, text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a header name"), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn both_generations_of_credentials_are_read() {
        let cases = [
            (headers(&[("x-api-key", "old")]), Some("old")),
            (headers(&[("authorization", "Bearer new")]), Some("new")),
            (headers(&[("authorization", "bearer new")]), Some("new")),
            (headers(&[("authorization", "BEARER  new ")]), Some("new")),
            (headers(&[("authorization", "Bearernew")]), None),
            (headers(&[("authorization", "Bearer ")]), None),
            (headers(&[("authorization", "Basic abc")]), None),
            (headers(&[("x-api-key", "  ")]), None),
            (HeaderMap::new(), None),
        ];
        for (map, expected) in cases {
            assert_eq!(credential(&map), expected, "{map:?}");
        }
    }

    #[test]
    fn only_this_machines_names_are_answered_without_keys() {
        for host in ["localhost", "localhost:8484", "127.0.0.1:8484", "[::1]:8484", "[::1]"] {
            assert!(refuse_foreign_host(&headers(&[("host", host)])).is_ok(), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8484", "127.0.0.1.evil.example", "", "0.0.0.0:8484"] {
            assert!(refuse_foreign_host(&headers(&[("host", host)])).is_err(), "{host}");
        }
    }
}
