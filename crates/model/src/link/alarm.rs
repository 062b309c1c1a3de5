//! A time limit that is set anew for each of many short waits. The timer is touched when it goes off, not at every wait: what comes piece by
//! piece, thousands of pieces a second, would pay for it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer for the waits of one reply.
#[derive(Default)]
pub(super) struct Alarm {
    /// May go off too early, never too late.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// What comes of `future`; none when `limit` has passed.
    pub(super) async fn within<F: Future>(&mut self, limit: Duration, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let deadline = Instant::now() + limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            tokio::select! {
                biased;
                output = &mut future => return Some(output),
                () = sleep.as_mut() => match Instant::now() < deadline {
                    true => sleep.as_mut().reset(deadline),
                    false => return None,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_limit() {
        let mut alarm = Alarm::default();
        let began = Instant::now();
        for _ in 0..10 {
            assert_eq!(alarm.within(3 * SECOND, sleep(2 * SECOND)).await, Some(()));
        }
        assert_eq!(began.elapsed(), 20 * SECOND);
        assert_eq!(alarm.within(3 * SECOND, pending::<()>()).await, None);
        assert_eq!(began.elapsed(), 23 * SECOND);
        // A shorter one behind a longer one, and a longer one behind one that has passed.
        assert_eq!(alarm.within(100 * SECOND, sleep(SECOND)).await, Some(()));
        assert_eq!(alarm.within(SECOND, pending::<()>()).await, None);
        assert_eq!(began.elapsed(), 25 * SECOND);
        assert_eq!(alarm.within(5 * SECOND, sleep(4 * SECOND)).await, Some(()));
    }
}
