//! The server's clock: the store's timestamps, and the way from and to the system's.

use std::time::{Duration, Instant, SystemTime};

use belljar_store::{Clock as _, SystemClock, Timestamp};

/// Now.
pub fn now() -> Timestamp {
    SystemClock.now()
}

/// Now, for organs that count in system time.
pub fn system_now() -> SystemTime {
    SystemTime::now()
}

/// Now, for waits.
pub fn instant_now() -> Instant {
    Instant::now()
}

/// Since when something takes.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// From now on.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long it took so far.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A system time as a timestamp; what lies before 1970 or beyond the calendar is cut to its ends.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(0).map_or_else(|_| now(), |epoch| epoch.saturating_add(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_digits_and_a_z() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_200_000_840_000);
        assert_eq!(timestamp(time).to_string(), "2026-11-20T18:40:00.840000Z");
    }
}
