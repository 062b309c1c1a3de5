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
