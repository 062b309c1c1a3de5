//! `POST /belljar/v1/scopes`: a signed scope, for a browser that must not have the key.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::{Extension, Json};
use belljar_store::UserId;
use belljar_wire::error::{ApiError, ErrorKind};
use belljar_wire::read::{Object, Path as JsonPath};
use http::HeaderMap;
use serde_json::{Value, json};

use crate::access::{Basis, Caller};
use crate::app::Shared;
use crate::clock;
use crate::failure::Failure;
use crate::routes::body;
use crate::scope::Scope;

/// Bytes of a body.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// How long a scope may last: nobody can end one by itself, so not longer than a day.
const EXPIRES_IN_S: RangeInclusive<u64> = 1..=86_400;

/// Signs one, for a key that keeps end users apart.
pub async fn create(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let bytes = body::read_json(&headers, body, BODY_BYTES_MAX).await?;
    let (user, life) = read(&bytes)?;
    let key = match caller {
        Caller::Unnamed(key) => key,
        Caller::User { basis: Basis::Signed, .. } => {
            let text = "A signed scope signs no other: only a key does";
            return Err(ApiError::new(ErrorKind::Permission, text).into());
        }
        Caller::User { basis: Basis::Key, .. } => {
            return Err(ApiError::invalid("belljar-user: not here: `user_id` in the body says who it is for").into());
        }
        Caller::Whole(_) => {
            let text = "This key does not keep end users apart; one that does is made with `belljar keys create --scope per-user`";
            return Err(ApiError::new(ErrorKind::Permission, text).into());
        }
    };
    let until = clock::now().saturating_add(life);
    let expires_at = key.expires_at.map_or(until, |end| end.min(until));
    let (key_id, workspace) = (key.key_id, key.workspace);
    let scope = Scope { key_id, workspace, user, expires_at };
    let token = scope.sign(&app.gate.secret(&app.store).await?);
    let user_id = scope.user.as_str();
    Ok(Json(json!({ "type": "scope", "token": token, "user_id": user_id, "expires_at": expires_at.to_string() })))
}

fn read(bytes: &[u8]) -> Result<(UserId, Duration), ApiError> {
    let mut object = Object::new(belljar_wire::read::parse(bytes)?, JsonPath::Root)?;
    let user = object.string("user_id")?;
    let seconds = object.required("expires_in_s")?.as_u64().filter(|seconds| EXPIRES_IN_S.contains(seconds));
    object.finish()?;
    let user = user.parse().map_err(|error| ApiError::invalid(format!("user_id: {error}")))?;
    let seconds = seconds.ok_or_else(|| {
        let (least, most) = (EXPIRES_IN_S.start(), EXPIRES_IN_S.end());
        ApiError::invalid(format!("expires_in_s: Input should be an integer from {least} to {most}"))
    })?;
    Ok((user, Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_for_one_user_and_at_most_a_day() {
        let life = |body: &str| read(body.as_bytes()).map(|(user, life)| (user.as_str().to_owned(), life.as_secs()));
        assert_eq!(life(r#"{"user_id": "ann", "expires_in_s": 60}"#), Ok(("ann".to_owned(), 60)));
        let range = "expires_in_s: Input should be an integer from 1 to 86400";
        for (body, expected) in [
            (r#"{"user_id": "ann", "expires_in_s": 0}"#, range),
            (r#"{"user_id": "ann", "expires_in_s": 86401}"#, range),
            (r#"{"user_id": "ann", "expires_in_s": "60"}"#, range),
            (r#"{"user_id": "ann"}"#, "expires_in_s: Field required"),
            (r#"{"expires_in_s": 60}"#, "user_id: Field required"),
            (
                r#"{"user_id": "", "expires_in_s": 60}"#,
                "user_id: Input should have 1 to 256 characters, none of them a control character",
            ),
            (r#"{"user_id": "ann", "expires_in_s": 60, "x": 1}"#, "x: Extra inputs are not permitted"),
        ] {
            assert_eq!(life(body).map_err(|error| error.message), Err(expected.to_owned()), "{body}");
        }
    }
}
