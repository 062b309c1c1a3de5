//! A token bucket: so much in a minute, refilled all the time, as the hosted API's limits are (wire.md §2.5).
//!
//! Our own, because what is written is known only afterwards: a bucket must be able to be in debt, to be given back to, and to say what
//! is left and when it is full. The limiters of crates decide before, once, and tell only how long to wait.

use std::time::{Duration, Instant};

/// Parts of a unit. A bucket of `per_minute` units gains `per_minute` parts in a microsecond, so nothing is ever rounded.
const PARTS: i128 = 60_000_000;

/// A bucket. It may be in debt: what is used is sometimes known only afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    per_minute: u64,
    /// In parts; at most `per_minute` units.
    level: i128,
    at: Instant,
}

/// There is not enough in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// There will be after so long, if nobody else takes it.
    For(Duration),
    /// There never will be: it is more than the bucket holds.
    Forever,
}

impl Bucket {
    /// A full bucket.
    pub fn full(per_minute: u64, now: Instant) -> Self {
        Self { per_minute, level: i128::from(per_minute) * PARTS, at: now }
    }

    /// How much it holds at most.
    pub const fn limit(&self) -> u64 {
        self.per_minute
    }

    /// Whether so much can be taken; nothing is.
    ///
    /// # Errors
    /// [`Short`].
    pub fn has(&mut self, units: u64, now: Instant) -> Result<(), Short> {
        if units > self.per_minute {
            return Err(Short::Forever);
        }
        self.refill(now);
        let missing = i128::from(units) * PARTS - self.level;
        if missing <= 0 { Ok(()) } else { Err(Short::For(self.time_for(missing))) }
    }

    /// Takes what has been asked for by [`Bucket::has`], or what was used without having been asked for.
    pub fn take(&mut self, units: u64, now: Instant) {
        self.refill(now);
        self.level -= i128::from(units) * PARTS;
    }

    /// Puts back what was taken beforehand and not used.
    pub fn give_back(&mut self, units: u64, now: Instant) {
        self.refill(now);
        self.level = (self.level + i128::from(units) * PARTS).min(self.whole());
    }

    /// Whole units that are left.
    pub fn remaining(&mut self, now: Instant) -> u64 {
        self.refill(now);
        u64::try_from(self.level / PARTS).unwrap_or(0)
    }

    /// How long until it is full again.
    pub fn full_in(&mut self, now: Instant) -> Duration {
        self.refill(now);
        self.time_for(self.whole() - self.level)
    }

    const fn whole(&self) -> i128 {
        self.per_minute as i128 * PARTS
    }

    /// An earlier instant than the last changes nothing.
    fn refill(&mut self, now: Instant) {
        let micros = now.saturating_duration_since(self.at).as_micros();
        // What a part of a microsecond gains is gained with the next whole one.
        self.at += Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let gained = i128::try_from(micros).unwrap_or(i128::MAX).saturating_mul(i128::from(self.per_minute));
        self.level = self.level.saturating_add(gained).min(self.whole());
    }

    /// How long the bucket takes to gain so many parts.
    fn time_for(&self, parts: i128) -> Duration {
        let per_micro = i128::from(self.per_minute.max(1));
        let micros = (parts.max(0) + per_micro - 1) / per_micro;
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_refills_all_the_time() {
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let mut bucket = Bucket::full(60, start);
        assert_eq!(bucket.has(60, start), Ok(()));
        bucket.take(60, start);
        assert_eq!((bucket.remaining(start), bucket.full_in(start)), (0, Duration::from_secs(60)));
        assert_eq!(bucket.has(1, start), Err(Short::For(Duration::from_secs(1))));
        assert_eq!(bucket.has(30, after(10)), Err(Short::For(Duration::from_secs(20))));
        assert_eq!((bucket.has(10, after(10)), bucket.remaining(after(10))), (Ok(()), 10));
        assert_eq!(bucket.has(61, after(10)), Err(Short::Forever));
        bucket.take(70, after(10));
        assert_eq!((bucket.remaining(after(69)), bucket.remaining(after(71))), (0, 1), "a debt is paid first");
        assert_eq!(bucket.remaining(after(100_000)), 60);
        bucket.take(10, after(100_000));
        bucket.give_back(20, after(100_000));
        assert_eq!(bucket.remaining(after(100_000)), 60, "it never holds more than its limit");
    }

    proptest! {
        /// Whatever is asked for and when: in no stretch of time is more given than the bucket held and gained in it.
        #[test]
        fn never_more_than_held_and_gained(
            per_minute in 1_u64..10_000,
            asked in prop::collection::vec((0_u64..200, 0_u64..3_000_000), 1..60),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::full(per_minute, start);
            let (mut now, mut given) = (start, 0_u128);
            for (units, micros) in asked {
                now += Duration::from_micros(micros);
                match bucket.has(units, now) {
                    Ok(()) => {
                        bucket.take(units, now);
                        given += u128::from(units);
                    }
                    Err(Short::Forever) => prop_assert!(units > per_minute),
                    Err(Short::For(wait)) => {
                        let mut later = bucket.clone();
                        prop_assert!(wait > Duration::ZERO);
                        prop_assert_eq!(later.has(units, now + wait), Ok(()), "the wait that was told is enough");
                        prop_assert!(bucket.clone().has(units, now + wait - Duration::from_micros(1)).is_err(), "and not too long");
                    }
                }
                let gained = (now - start).as_micros() * u128::from(per_minute) / 60_000_000;
                prop_assert!(given <= u128::from(per_minute) + gained);
                prop_assert!(bucket.remaining(now) <= per_minute);
            }
        }
    }
}
