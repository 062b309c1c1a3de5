//! What a workspace may hold and use, and what it does.

use crate::{Timestamp, UserId, WorkspaceId};

/// What the files of one workspace may come to, those of its end users among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileQuota {
    /// Bytes of all files and named checkpoints together.
    pub bytes_max: u64,
    /// How many files, checkpoints not among them; `None` is any number.
    pub files_max: Option<u64>,
}

/// A day of UTC, as days since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i64);

/// Microseconds of a day.
const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

impl Day {
    /// The day of an instant.
    pub fn of(instant: Timestamp) -> Self {
        Self(instant.as_micros().div_euclid(DAY_US))
    }

    /// The instant at which the next day begins: then a day's quota is whole again.
    pub fn end(self) -> Timestamp {
        let micros = self.0.saturating_add(1).saturating_mul(DAY_US);
        // Any day comes of an instant; only the very last has no next one.
        Timestamp::from_micros(micros).unwrap_or_else(|_| Timestamp::last())
    }

    /// The day so many days before.
    #[must_use]
    pub const fn before(self, days: u32) -> Self {
        Self(self.0.saturating_sub(days as i64))
    }

    /// As it was stored.
    pub(crate) const fn from_number(number: i64) -> Self {
        Self(number)
    }

    /// As it is stored.
    pub(crate) const fn number(self) -> i64 {
        self.0
    }
}

/// As RFC 3339 writes a date.
impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let midnight = Timestamp::from_micros(self.0.saturating_mul(DAY_US)).map_err(|_| std::fmt::Error)?;
        let text = midnight.to_string();
        f.pad(text.split_once('T').map_or(text.as_str(), |(date, _)| date))
    }
}

/// What a workspace has used on one day, as far as a quota made somebody count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spending {
    /// Cells and commands that were begun.
    pub executions: u64,
    /// Tokens in and out.
    pub tokens: u64,
}

/// What a workspace, or one of its end users, has: for whoever keeps an eye on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The end user; `None` for what belongs to none.
    pub user: Option<UserId>,
    /// Files whose content is kept.
    pub files: u64,
    /// Their bytes, and those of named checkpoints.
    pub bytes: u64,
    /// Containers that can be named, live or on disk.
    pub containers: u64,
    /// Batches that have not ended.
    pub batches: u64,
    /// What the workspace has used today; zero beside an end user: it is counted for all of them together.
    pub today: Spending,
}

impl Holding {
    /// Of a workspace that has nothing.
    pub(crate) fn none(workspace: WorkspaceId) -> Self {
        Self { workspace, user: None, files: 0, bytes: 0, containers: 0, batches: 0, today: Spending::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_of_utc() {
        let at = |text: &str| text.parse::<Timestamp>().expect("an instant");
        let day = Day::of(at("2026-11-29T23:59:59.999999Z"));
        assert_eq!(day.end(), at("2026-11-30T00:00:00Z"));
        assert_eq!(Day::of(at("2026-11-29T00:00:00Z")), day);
        assert!(Day::of(at("2026-11-30T00:00:00Z")) > day);
        assert_eq!((day.to_string().as_str(), day.before(29).to_string().as_str()), ("2026-11-29", "2026-10-31"));
        assert_eq!(Day::of(at("1969-12-31T23:00:00Z")).end(), at("1970-01-01T00:00:00Z"));
    }
}
