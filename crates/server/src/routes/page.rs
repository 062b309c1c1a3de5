//! The cursor of a list's next page, which clients send back as they got it.

use belljar_ids::PageToken;
use belljar_store::PageCursor;
use belljar_wire::error::ApiError;

/// Reads the query's `page`.
pub fn cursor(text: &str) -> Result<PageCursor, ApiError> {
    let token: Option<PageToken> = text.parse().ok();
    let cursor = token.and_then(|token| PageCursor::from_token(&token).ok());
    cursor.ok_or_else(|| ApiError::invalid("page: Input should be a cursor of an earlier page"))
}
