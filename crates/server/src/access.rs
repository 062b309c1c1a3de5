//! Who asks: credentials to principal, and the layers that every request passes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use belljar_ids::RequestId;
use belljar_store::{KeyEnd, KeyHash, KeyScope, Principal as Key, ShownKey, UserId, WorkspaceId};
use belljar_wire::error::{ApiError, ErrorKind};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue, Method};

use crate::app::App;
use crate::clock;
use crate::failure::Failure;
use crate::principal::{Access, LOCAL_WORKSPACE, Principal, isolation_of};
use crate::random::OsIds;
use crate::routes::files::store_failure;
use crate::scope::{self, Scope};
use crate::tenants::permit::ModelPermit;
use crate::tenants::rates::RateHeaders;

/// Names the end user that a request is for, under a key that keeps them apart.
const USER: &str = "belljar-user";

/// [`LOCAL_WORKSPACE`], as a workspace.
pub fn local_workspace() -> Result<WorkspaceId, Failure> {
    LOCAL_WORKSPACE.parse().map_err(|error| Failure::internal("workspace", &error))
}

/// Gives each request its id, and each failure its body.
pub async fn identify(mut request: Request, next: Next) -> Response {
    let request_id = RequestId::mint(&mut OsIds);
    request.extensions_mut().insert(request_id.clone());
    let mut response = next.run(request).await;
    let limits = response.extensions_mut().remove::<RateHeaders>();
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        response = failure.reply(&request_id);
    } else if response.status().is_client_error() || response.status().is_server_error() {
        // Refused before one of our handlers was reached, by the framework: give it the shape that clients know.
        response = Failure::of_framework(response.status()).reply(&request_id);
    }
    if let Some(RateHeaders(headers)) = limits {
        response.headers_mut().extend(headers);
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
/// this machine's, which is how a web page would do it; 400 for an end user that cannot be one.
pub async fn authenticate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Result<Response, Failure> {
    let key = credential(request.headers()).ok_or_else(|| {
        let text = "x-api-key header is required";
        Failure::from(ApiError::new(ErrorKind::Authentication, text))
    })?;
    let user = named_user(request.headers())?;
    let caller = match app.gate.access(&app.store).await? {
        Access::Open => {
            refuse_foreign_host(request.headers())?;
            Caller::whole(local()?, user)?
        }
        Access::Keys => match key.starts_with(scope::PREFIX) {
            true => signed(&app, key, user).await?,
            false => match app.store.authenticate(KeyHash::of(key)).await.map_err(store_failure)? {
                ShownKey::Opens(key) => Caller::of_key(key, user)?,
                no_key => return Err(refused(&no_key)),
            },
        },
    };
    // Noted before anything can be made in it; what only looks, makes nothing.
    let makes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE);
    if let Caller::User { user, principal, .. } = &caller
        && makes
    {
        app.store.enter_scope(&principal.workspace, user).await.map_err(store_failure)?;
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// Lets a request pass whose principal is known without its body: what a key with the scope of each end user may see, depends on
/// which.
///
/// # Errors
/// 400 without an end user.
pub async fn settle(mut request: Request, next: Next) -> Result<Response, Failure> {
    let caller = request.extensions().get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| Failure::internal("settle", &"a request that nobody sent"))?;
    match caller {
        Caller::Whole(principal) | Caller::User { principal, .. } => request.extensions_mut().insert(principal),
        Caller::Unnamed(_) => {
            let text = "belljar-user: header is required: this key opens the things of one end user in each request. A request for \
                        `/v1/messages` may say who it is in `metadata.user_id`";
            return Err(ApiError::invalid(text).into());
        }
    };
    Ok(next.run(request).await)
}

async fn signed(app: &App, token: &str, user: Option<UserId>) -> Result<Caller, Failure> {
    let said = Scope::read(&app.gate.secret(&app.store).await?, token, clock::now());
    let said = said.ok_or_else(|| refused(&ShownKey::Unknown))?;
    // The key may have ended since it was signed, or be another's by now.
    match app.store.key(&said.key_id).await.map_err(store_failure)? {
        ShownKey::Opens(key) if key.scope == KeyScope::PerUser && key.workspace == said.workspace => {
            if user.is_some_and(|user| user != said.user) {
                let text = "belljar-user: this is not the end user that the scope was signed for";
                return Err(ApiError::invalid(text).into());
            }
            Ok(Caller::user(principal(&key), said.user, Basis::Signed))
        }
        no_key => Err(refused(&no_key)),
    }
}

/// One text for every key that opens nothing; the log tells the operator more.
pub fn refused(shown: &ShownKey) -> Failure {
    match shown {
        ShownKey::Ended { key_id, end: KeyEnd::Revoked(at) } => {
            tracing::warn!(%key_id, %at, "refused: this key was revoked")
        }
        ShownKey::Ended { key_id, end: KeyEnd::Expired(at) } => {
            tracing::warn!(%key_id, %at, "refused: this key has expired")
        }
        ShownKey::Opens(_) | ShownKey::Unknown => {}
    }
    ApiError::new(ErrorKind::Authentication, "invalid x-api-key").into()
}

fn local() -> Result<Principal, Failure> {
    Ok(Principal { workspace: local_workspace()?, isolation: None, models: ModelPermit::default(), key: None })
}

/// What a key opens by itself.
fn principal(key: &Key) -> Principal {
    Principal {
        workspace: key.workspace.clone(),
        isolation: key.isolation.map(isolation_of),
        models: ModelPermit::of(key.models.clone()),
        key: Some(key.key_id.clone()),
    }
}

/// Whose things a request is about, as far as it is known before its body is read.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Those of a workspace that are no end user's.
    Whole(Principal),
    /// Those of one end user, who has been named.
    User {
        /// With the end user's part as its workspace.
        principal: Principal,
        /// Who.
        user: UserId,
        /// Who says so.
        basis: Basis,
    },
    /// Those of one end user, who still has to be named.
    Unnamed(Key),
}

/// On whose word a request is an end user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Of whoever holds the key.
    Key,
    /// Of a signature.
    Signed,
}

impl Caller {
    fn whole(principal: Principal, user: Option<UserId>) -> Result<Self, Failure> {
        if user.is_some() {
            // Otherwise whoever sends it believes that end users are kept apart.
            let text = "belljar-user: this key does not keep end users apart; one that does is made with \
                        `belljar keys create --scope per-user`";
            return Err(ApiError::invalid(text).into());
        }
        Ok(Self::Whole(principal))
    }

    fn user(whole: Principal, user: UserId, basis: Basis) -> Self {
        let workspace = whole.workspace.scope_of(&user);
        Self::User { principal: Principal { workspace, ..whole }, user, basis }
    }

    fn of_key(key: Key, user: Option<UserId>) -> Result<Self, Failure> {
        match (key.scope, user) {
            (KeyScope::Workspace, user) => Self::whole(principal(&key), user),
            (KeyScope::PerUser, Some(user)) => Ok(Self::user(principal(&key), user, Basis::Key)),
            (KeyScope::PerUser, None) => Ok(Self::Unnamed(key)),
        }
    }

    /// The workspace, or the end user's part of it if that is known.
    pub fn workspace(&self) -> &WorkspaceId {
        match self {
            Self::Whole(principal) | Self::User { principal, .. } => &principal.workspace,
            Self::Unnamed(key) => &key.workspace,
        }
    }

    /// Which models it may name.
    pub fn models(&self) -> ModelPermit {
        match self {
            Self::Whole(principal) | Self::User { principal, .. } => principal.models.clone(),
            Self::Unnamed(key) => ModelPermit::of(key.models.clone()),
        }
    }

    /// The principal of a request whose body may name the end user (`metadata.user_id`). A header or a signature outweighs it.
    ///
    /// # Errors
    /// 400 without an end user where one is needed, and for one that cannot be.
    pub async fn with_body(self, app: &App, user_id: Option<&str>) -> Result<Principal, Failure> {
        let key = match self {
            Self::Whole(principal) | Self::User { principal, .. } => return Ok(principal),
            Self::Unnamed(key) => key,
        };
        let text = user_id.ok_or_else(|| {
            ApiError::invalid(
                "metadata.user_id: Field required: this key opens the things of one end user in each request. The header \
                 `belljar-user` may name the end user as well",
            )
        })?;
        let user: UserId = text.parse().map_err(|error| ApiError::invalid(format!("metadata.user_id: {error}")))?;
        let workspace = key.workspace.scope_of(&user);
        app.store.enter_scope(&workspace, &user).await.map_err(store_failure)?;
        Ok(Principal { workspace, ..principal(&key) })
    }
}

/// The end user that a request names in its header.
fn named_user(headers: &HeaderMap) -> Result<Option<UserId>, ApiError> {
    let mut named = headers.get_all(USER).iter();
    let Some(value) = named.next() else { return Ok(None) };
    if named.next().is_some() {
        return Err(ApiError::invalid("belljar-user: only one is allowed"));
    }
    let text = std::str::from_utf8(value.as_bytes());
    let text = text.map_err(|_not_text| ApiError::invalid("belljar-user: Input should be text in UTF-8"))?;
    text.parse().map(Some).map_err(|error| ApiError::invalid(format!("belljar-user: {error}")))
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
