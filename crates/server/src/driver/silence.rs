//! How long a turn has been silent. The timer is touched when it goes off, not at every event, of which there are thousands a second.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// See the module's head.
pub struct Silence {
    longest: Duration,
    heard: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl Silence {
    /// Begins now; `longest` is how long it may last.
    pub fn new(longest: Duration) -> Self {
        let heard = Instant::now();
        Self { longest, heard, alarm: Box::pin(sleep_until(heard + longest)) }
    }

    /// It begins anew.
    pub fn break_now(&mut self) {
        self.heard = Instant::now();
    }

    /// Waits until it has lasted too long. Cancel-safe.
    pub async fn too_long(&mut self) {
        loop {
            self.alarm.as_mut().await;
            let end = self.heard + self.longest;
            if Instant::now() >= end {
                return;
            }
            self.alarm.as_mut().reset(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_counts_from_the_last_event() {
        let mut silence = Silence::new(3 * SECOND);
        for _ in 0..4 {
            assert!(timeout(2 * SECOND, silence.too_long()).await.is_err());
            silence.break_now();
        }
        let began = Instant::now();
        silence.too_long().await;
        assert_eq!(began.elapsed(), 3 * SECOND);
        silence.break_now();
        silence.too_long().await;
        assert_eq!(began.elapsed(), 6 * SECOND);
        sleep(9 * SECOND).await;
        silence.break_now();
        silence.too_long().await;
        assert_eq!(began.elapsed(), 18 * SECOND);
    }
}
