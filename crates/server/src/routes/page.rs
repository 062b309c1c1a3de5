//! What the queries of all lists have in common: how many entries, and the cursor that clients send back as they got it.

use belljar_ids::PageToken;
use belljar_store::PageCursor;
use belljar_wire::error::ApiError;

const LIMIT_DEFAULT: u16 = 20;
const LIMIT_MAX: u16 = 1000;

/// Reads the query's `page`.
pub fn cursor(text: &str) -> Result<PageCursor, ApiError> {
    let token: Option<PageToken> = text.parse().ok();
    let cursor = token.and_then(|token| PageCursor::from_token(&token).ok());
    cursor.ok_or_else(|| ApiError::invalid("page: Input should be a cursor of an earlier page"))
}

/// A query's `limit`: 1 to 1000, 20 where it is not said.
pub fn limit(text: Option<&str>) -> Result<u16, ApiError> {
    let Some(text) = text else { return Ok(LIMIT_DEFAULT) };
    let limit: i64 = text.parse().map_err(|_| ApiError::invalid("limit: Input should be a valid integer"))?;
    match u16::try_from(limit) {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Ok(0) | Err(_) if limit < 1 => Err(ApiError::invalid("limit: Input should be greater than or equal to 1")),
        _ => Err(ApiError::invalid("limit: Input should be less than or equal to 1000")),
    }
}

/// Name and value pairs, percent-decoded, in order.
pub fn pairs(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    let uri: http::Uri = format!("/?{query}").parse().map_err(|_| ApiError::invalid("The query is not valid"))?;
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri);
    pairs.map(|pairs| pairs.0).map_err(|_| ApiError::invalid("The query is not valid"))
}
