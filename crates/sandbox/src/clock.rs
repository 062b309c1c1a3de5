//! A cell's wall time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A standing clock is looked at no more often than this.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(20);

/// Runs while the cell does. While the cell waits for answers it stands, and only the processor time that the container
/// uses meanwhile is counted: code that says that it waits, and works, gains nothing.
#[derive(Debug)]
pub struct Clock {
    left: Duration,
    hands: Hands,
    /// How many processors the container may use at once.
    cpus: f64,
    stood: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Hands {
    Run { since: Instant },
    Stand { since: Instant, cpu: Duration, look_at: Instant },
}

/// A clock, for the program that this process is about to become: what passes meanwhile is nobody's.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedClock {
    left: Duration,
    cpus: f64,
    stood: Duration,
    /// How much of the processor had been used when it was stopped; none while it runs.
    stands_at: Option<Duration>,
}

impl Clock {
    /// What [`Clock::take_over`] needs.
    pub fn hand_over(&self) -> HandedClock {
        let (left, stands_at) = match self.hands {
            Hands::Run { since } => (self.left.saturating_sub(since.elapsed()), None),
            Hands::Stand { cpu, .. } => (self.left, Some(cpu)),
        };
        HandedClock { left, cpus: self.cpus, stood: self.stood(), stands_at }
    }

    /// A clock that was handed over.
    pub fn take_over(handed: HandedClock) -> Self {
        let HandedClock { left, cpus, stood, stands_at } = handed;
        let since = Instant::now();
        let hands = match stands_at {
            None => Hands::Run { since },
            Some(cpu) => Hands::Stand { since, cpu, look_at: since },
        };
        Self { left, hands, cpus, stood }
    }

    /// Runs from now on.
    pub fn start(wall: Duration, cpus: f64) -> Self {
        Self { left: wall, hands: Hands::Run { since: Instant::now() }, cpus, stood: Duration::ZERO }
    }

    /// How long it has stood.
    pub fn stood(&self) -> Duration {
        match self.hands {
            Hands::Run { .. } => self.stood,
            Hands::Stand { since, .. } => self.stood + since.elapsed(),
        }
    }

    /// Before this moment the time cannot be up.
    pub fn look_at(&self) -> Instant {
        match self.hands {
            Hands::Run { since } => since + self.left,
            Hands::Stand { look_at, .. } => look_at,
        }
    }

    /// Stops it, when the container has used this much of the processor so far.
    pub fn stand(&mut self, cpu: impl FnOnce() -> Duration) {
        if let Hands::Run { since } = self.hands {
            let now = Instant::now();
            self.left = self.left.saturating_sub(now - since);
            self.hands = Hands::Stand { since: now, cpu: cpu(), look_at: now + self.least(self.left) };
        }
    }

    /// Lets it run, when the container has used this much of the processor so far.
    pub fn run(&mut self, cpu: impl FnOnce() -> Duration) {
        if let Hands::Stand { since, cpu: before, .. } = self.hands {
            let now = Instant::now();
            self.left = self.left.saturating_sub(cpu().saturating_sub(before));
            self.stood += now - since;
            self.hands = Hands::Run { since: now };
        }
    }

    /// Whether the time is up, when the container has used this much of the processor so far.
    pub fn is_up(&mut self, cpu: impl FnOnce() -> Duration) -> bool {
        let now = Instant::now();
        match self.hands {
            Hands::Run { since } => now - since >= self.left,
            Hands::Stand { since, cpu: before, .. } => {
                let left = self.left.saturating_sub(cpu().saturating_sub(before));
                self.hands = Hands::Stand { since, cpu: before, look_at: now + self.least(left) };
                left.is_zero()
            }
        }
    }

    /// How long it takes at least to use this much of the processor.
    fn least(&self, left: Duration) -> Duration {
        left.div_f64(self.cpus.max(1.0)).max(LOOK_PAUSE_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    fn used(seconds: u32) -> impl Fn() -> Duration {
        move || SECOND * seconds
    }

    #[tokio::test(start_paused = true)]
    async fn it_runs_out() {
        let mut clock = Clock::start(SECOND * 10, 1.0);
        assert_eq!(clock.look_at(), Instant::now() + SECOND * 10);
        advance(SECOND * 9).await;
        assert!(!clock.is_up(used(0)));
        advance(SECOND).await;
        assert!(clock.is_up(used(0)));
        assert_eq!(clock.stood(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_it_stands_does_not_count() {
        let mut clock = Clock::start(SECOND * 10, 1.0);
        advance(SECOND * 4).await;
        clock.stand(used(1));
        advance(SECOND * 100).await;
        assert!(!clock.is_up(used(1)));
        assert_eq!(clock.stood(), SECOND * 100);
        clock.run(used(1));
        assert_eq!(clock.look_at(), Instant::now() + SECOND * 6);
        advance(SECOND * 6).await;
        assert!(clock.is_up(used(1)));
        assert_eq!(clock.stood(), SECOND * 100);
    }

    #[tokio::test(start_paused = true)]
    async fn work_while_it_stands_does() {
        let mut clock = Clock::start(SECOND * 10, 2.0);
        clock.stand(used(5));
        assert_eq!(clock.look_at(), Instant::now() + SECOND * 5, "two processors use ten seconds in five");
        advance(SECOND * 5).await;
        assert!(!clock.is_up(used(9)));
        assert_eq!(clock.look_at(), Instant::now() + SECOND * 3);
        clock.run(used(9));
        assert_eq!(clock.look_at(), Instant::now() + SECOND * 6);
        clock.stand(used(9));
        assert!(clock.is_up(used(15)));
    }

    #[tokio::test(start_paused = true)]
    async fn handed_over_it_goes_on_as_it_was() {
        let mut clock = Clock::start(SECOND * 10, 1.0);
        advance(SECOND * 4).await;
        let runs = Clock::take_over(clock.hand_over());
        assert_eq!(runs.look_at(), Instant::now() + SECOND * 6);
        clock.stand(used(1));
        advance(SECOND * 100).await;
        let mut stands = Clock::take_over(clock.hand_over());
        assert!(!stands.is_up(used(3)));
        assert_eq!(stands.stood(), SECOND * 100);
        stands.run(used(3));
        assert_eq!(stands.look_at(), Instant::now() + SECOND * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_twice_is_stopping_once() {
        let mut clock = Clock::start(SECOND * 10, 1.0);
        clock.stand(used(0));
        clock.stand(used(9));
        clock.run(used(4));
        clock.run(used(9));
        assert_eq!(clock.look_at(), Instant::now() + SECOND * 6);
    }
}
