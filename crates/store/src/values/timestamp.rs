//! Instants, and the one way they are written.

use std::time::Duration;

/// An instant, in whole microseconds of UTC.
///
/// Written as RFC 3339 with exactly six fractional digits and `Z` (wire.md §7.2, §9.1), and kept in the
/// database as microseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

/// Not an RFC 3339 instant, or one outside the years -9999 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 instant between the years -9999 and 9999")]
pub struct TimestampError;

impl Timestamp {
    /// The instant `micros` microseconds after 1970-01-01T00:00:00Z.
    pub fn from_micros(micros: i64) -> Result<Self, TimestampError> {
        let instant = jiff::Timestamp::from_microsecond(micros).map_err(|_| TimestampError)?;
        Ok(Self(instant))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn as_micros(self) -> i64 {
        self.0.as_microsecond()
    }

    /// The instant `after` later, or the last one there is.
    #[must_use]
    pub fn saturating_add(self, after: Duration) -> Self {
        let micros = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.as_micros().saturating_add(micros)).unwrap_or(Self::truncated(jiff::Timestamp::MAX))
    }

    /// The instant `before` earlier, or the first one there is.
    #[must_use]
    pub fn saturating_sub(self, before: Duration) -> Self {
        let micros = i64::try_from(before.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.as_micros().saturating_sub(micros)).unwrap_or(Self::truncated(jiff::Timestamp::MIN))
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        let micros = self.as_micros().saturating_sub(earlier.as_micros());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// The last instant there is.
    pub(crate) fn last() -> Self {
        Self::truncated(jiff::Timestamp::MAX)
    }

    pub(crate) fn truncated(instant: jiff::Timestamp) -> Self {
        // Rounding down cannot leave jiff's range: both its ends are whole microseconds or above one.
        Self(jiff::Timestamp::from_microsecond(instant.as_microsecond()).unwrap_or(instant))
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

impl std::fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let instant: jiff::Timestamp = text.parse().map_err(|_| TimestampError)?;
        Ok(Self::truncated(instant))
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
