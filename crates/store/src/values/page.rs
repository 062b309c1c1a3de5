//! Places in a listing.

use crate::{FileRecord, Timestamp};
use belljar_ids::{FileId, PageToken};

/// A place in a listing, just behind one entry: newest first, by `(created_at, number)`.
///
/// It holds positions, not an entry, so it stays valid when the entry it was taken from is deleted. Entries
/// never move, so going from page to page meets every entry that exists throughout exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageCursor {
    pub(crate) created_at_us: i64,
    /// Breaks ties; counted within one workspace.
    pub(crate) number: i64,
}

/// A page token that none of our listings gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the page token is not one that a listing returned")]
pub struct CursorError;

impl PageCursor {
    /// In front of everything.
    pub(crate) const START: Self = Self { created_at_us: i64::MAX, number: i64::MAX };

    /// The cursor as the client gets it: `page_` and 32 hexadecimal digits.
    pub fn to_token(self) -> PageToken {
        let payload = format!("{:016x}{:016x}", self.created_at_us, self.number);
        PageToken::carrying(&payload).expect("32 hexadecimal digits are a page token's payload")
    }

    /// Reads what [`Self::to_token`] wrote.
    pub fn from_token(token: &PageToken) -> Result<Self, CursorError> {
        let cursor = Self::from_payload(token.payload()).ok_or(CursorError)?;
        // Refuses what parses but was not written so: capitals, a sign.
        if cursor.to_token() == *token { Ok(cursor) } else { Err(CursorError) }
    }

    fn from_payload(payload: &str) -> Option<Self> {
        let (created_at, number) = payload.split_at_checked(16)?;
        let created_at_us = u64::from_str_radix(created_at, 16).ok()?.cast_signed();
        let number = u64::from_str_radix(number, 16).ok()?.cast_signed();
        Timestamp::from_micros(created_at_us).ok()?;
        (number >= 0).then_some(Self { created_at_us, number })
    }
}

/// Which files to list. Every answer is newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileQuery {
    /// From the beginning, or behind a cursor, towards older ones.
    Page {
        /// The most files to return; wire.md §9.3 allows 1 to 1000.
        limit: u16,
        /// Where to go on.
        after: Option<PageCursor>,
    },
    /// These, as far as they exist, on one page; doubles count once (wire.md §9.3).
    Ids(Vec<FileId>),
    /// The old dialect's `after_id`: the files next older than this one (wire.md §9.6).
    OlderThan {
        /// The file in front of the page. One deleted not long ago still serves.
        id: FileId,
        /// The most files to return.
        limit: u16,
    },
    /// The old dialect's `before_id`: the files next newer than this one (wire.md §9.6).
    NewerThan {
        /// The file behind the page. One deleted not long ago still serves.
        id: FileId,
        /// The most files to return.
        limit: u16,
    },
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paged<T> {
    /// The entries, newest first.
    pub entries: Vec<T>,
    /// Where the next older page begins; none when there is none, and for [`FileQuery::Ids`].
    pub next: Option<PageCursor>,
    /// Whether there is more in the direction asked for.
    pub has_more: bool,
}

/// One page of files.
pub type FilePage = Paged<FileRecord>;
