//! The suite's one clock.

use std::time::{Duration, Instant};

/// A moment that passed.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// From now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Since then.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Since then, in microseconds.
    pub fn micros(self) -> f64 {
        self.elapsed().as_secs_f64() * 1e6
    }
}

/// CLOCK_MONOTONIC in nanoseconds. Containers are in no time namespace of their own, so that code reads the same from
/// `time.monotonic_ns()`; gVisor's have a clock of their own.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let parts = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    // It begins at zero with the machine.
    parts.0.unwrap_or(0) * 1_000_000_000 + parts.1.unwrap_or(0)
}
