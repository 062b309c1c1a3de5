//! Where the time comes from: the one place of this crate that may read a wall clock.

use crate::Timestamp;

/// Tells the time. Passed in at [`crate::Store::open`], so that tests decide what time it is.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's wall clock, in UTC.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::truncated(jiff::Timestamp::now())
    }
}
