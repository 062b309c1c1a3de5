//! What the queries of all lists have in common: how many entries, and the cursor that clients send back as they got it.

use std::str::FromStr;

use belljar_ids::PageToken;
use belljar_store::PageCursor;
use belljar_wire::error::ApiError;
use belljar_wire::read::Brief;

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

/// The query of a list of ours, which knows `limit` and `page`: how many entries, and where to go on.
pub fn read(query: &str) -> Result<(u16, Option<PageCursor>), ApiError> {
    let (mut most, mut page) = (None, None);
    for (name, value) in pairs(query)? {
        match name.as_str() {
            "limit" => most = Some(value),
            "page" => page = Some(value),
            other => return Err(unknown(other)),
        }
    }
    Ok((limit(most.as_deref())?, page.as_deref().map(cursor).transpose()?))
}

/// What a client asks for that knows entries, not cursors: `limit`, and `after_id` or `before_id` (wire.md §9.6, §17).
#[derive(Debug, PartialEq, Eq)]
pub struct ByIds {
    /// How many entries.
    pub limit: u16,
    /// Which.
    pub part: Part<String>,
}

impl ByIds {
    /// Reads a query. `other` takes what the list knows besides, or gives it back.
    pub fn read(query: &str, mut other: impl FnMut(&str, String) -> Option<String>) -> Result<Self, ApiError> {
        let (mut most, mut after, mut before) = (None, None, None);
        for (name, value) in pairs(query)? {
            match name.as_str() {
                "limit" => most = Some(value),
                "after_id" => after = Some(value),
                "before_id" => before = Some(value),
                // Old SDKs add it to every beta call (wire.md §1.4).
                "beta" => {}
                name if other(name, value).is_none() => {}
                name => return Err(unknown(name)),
            }
        }
        Ok(Self { part: Part::of(after, before)?, limit: limit(most.as_deref())? })
    }
}

/// A part of a list, by the entry that it begins behind or ends before.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<T> {
    /// From the list's beginning.
    First,
    /// `after_id`: what comes behind this one.
    After(T),
    /// `before_id`: what comes before this one.
    Before(T),
}

impl Part<String> {
    /// Both at once are refused.
    pub fn of(after: Option<String>, before: Option<String>) -> Result<Self, ApiError> {
        match (after, before) {
            (Some(_), Some(_)) => Err(ApiError::invalid("after_id: cannot be combined with `before_id`")),
            (Some(after), None) => Ok(Self::After(after)),
            (None, Some(before)) => Ok(Self::Before(before)),
            (None, None) => Ok(Self::First),
        }
    }

    /// With ids of one kind: a `message batch id`.
    pub fn parse<T: FromStr>(self, kind: &str) -> Result<Part<T>, ApiError> {
        let id = |name: &str, text: String| {
            text.parse().map_err(|_| ApiError::invalid(format!("{name}: Input should be a {kind}")))
        };
        match self {
            Self::First => Ok(Part::First),
            Self::After(text) => id("after_id", text).map(Part::After),
            Self::Before(text) => id("before_id", text).map(Part::Before),
        }
    }
}

/// 400 for a parameter that no list has.
pub fn unknown(name: &str) -> ApiError {
    ApiError::invalid(format!("{}: Extra inputs are not permitted", Brief(name)))
}

/// Name and value pairs, percent-decoded, in order.
pub fn pairs(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    let uri: http::Uri = format!("/?{query}").parse().map_err(|_| ApiError::invalid("The query is not valid"))?;
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri);
    pairs.map(|pairs| pairs.0).map_err(|_| ApiError::invalid("The query is not valid"))
}
