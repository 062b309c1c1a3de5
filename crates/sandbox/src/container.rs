//! What the registry, the leases and the keeper share of one container.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use belljar_ids::ContainerId;
use belljar_jail::cgroup::{Cgroup, CgroupError};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::DeathReason;
use crate::guest::Guest;
use crate::keeper::Request;
use crate::options::Isolation;
use crate::process::Reins;
use crate::state::{Event, Life, Refused, State};

/// See the module's head.
pub struct Container {
    pub id: ContainerId,
    pub isolation: Isolation,
    pub created_at: SystemTime,
    last_used_at: Mutex<SystemTime>,
    pub life: Arc<Life>,
    /// Whoever waits for a lease waits here in line.
    line: tokio::sync::Mutex<()>,
    reins: Arc<Reins>,
    /// Ends the container.
    pub stop: CancellationToken,
    pub requests: mpsc::Sender<Request>,
}

/// What others than its keeper know of a container, for the program that this process is about to become.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Told {
    pub id: ContainerId,
    pub created_at: SystemTime,
    pub last_used_at: SystemTime,
    pub stance: Stance,
}

/// In which of its states a container can be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stance {
    Ready,
    Frozen,
    /// By a cell that waits.
    Leased,
}

/// What a container is made of before it has a name.
pub struct Parts {
    pub life: Arc<Life>,
    pub reins: Arc<Reins>,
    pub isolation: Isolation,
    pub stop: CancellationToken,
}

impl Parts {
    pub fn of(guest: &Guest, life: Arc<Life>, stop: CancellationToken) -> Self {
        Self { life, reins: Arc::clone(guest.reins()), isolation: guest.isolation(), stop }
    }
}

impl Container {
    /// Somebody's from now on. One that has died on its shelf stays dead, and its keeper says so.
    pub fn claimed(id: ContainerId, now: SystemTime, parts: Parts, requests: mpsc::Sender<Request>) -> Self {
        let Parts { life, reins, isolation, stop } = parts;
        let _dead_before = life.step(Event::Claim);
        let (last_used_at, line) = (Mutex::new(now), tokio::sync::Mutex::default());
        Self { id, isolation, created_at: now, last_used_at, life, line, reins, stop, requests }
    }

    /// One that was another program's before, as it was then: its life is taken there by its own steps.
    pub fn inherited(of: &Told, parts: Parts, requests: mpsc::Sender<Request>) -> Self {
        let Told { id, created_at, last_used_at, stance } = of;
        let container = Self::claimed(id.clone(), *created_at, parts, requests);
        container.used_at(*last_used_at);
        let step = match stance {
            Stance::Ready => None,
            Stance::Frozen => Some(Event::Freeze),
            Stance::Leased => Some(Event::Lease),
        };
        // From a life that has just begun each of them is in the table.
        let _taken = step.map(|step| container.life.step(step));
        container
    }

    /// What is told of it to another program; none of one that is over.
    pub fn told(&self) -> Option<Told> {
        let stance = match self.life.state() {
            State::Ready => Stance::Ready,
            State::Frozen => Stance::Frozen,
            State::Leased => Stance::Leased,
            State::Starting | State::Pooled | State::Dead | State::Gone => return None,
        };
        let (id, created_at, last_used_at) = (self.id.clone(), self.created_at, self.last_used_at());
        Some(Told { id, created_at, last_used_at, stance })
    }

    /// The hold that whoever has a leased one has.
    pub fn held(self: &Arc<Self>) -> Hold {
        Hold(Arc::clone(self))
    }

    pub fn last_used_at(&self) -> SystemTime {
        *self.last_used_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn used_at(&self, now: SystemTime) {
        *self.last_used_at.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Why it died, if it has.
    pub fn death(&self) -> Option<&DeathReason> {
        self.life.death()
    }

    /// Waits in line, at most `wait`, until it is free, and takes hold of it, running again if it was frozen: that takes a
    /// moment longer.
    pub async fn hold(self: Arc<Self>, wait: Duration) -> Result<Hold, NotHeld> {
        let free = tokio::time::timeout(wait, self.await_turn()).await;
        let from = free.map_err(|_elapsed| NotHeld::Busy)?.map_err(|_refused| NotHeld::Over)?;
        let hold = Hold(Arc::clone(&self));
        if from == State::Frozen {
            let thawing = tokio::task::spawn_blocking(move || self.thaw()).await;
            if thawing.is_err() || hold.0.life.state().is_over() {
                return Err(NotHeld::Over);
            }
        }
        Ok(hold)
    }

    /// Leases it when its turn has come; tells from which state. Cancel-safe: nothing is waited for after the lease.
    async fn await_turn(&self) -> Result<State, Refused> {
        let _turn = self.line.lock().await;
        loop {
            match self.life.step(Event::Lease) {
                Ok(from) => return Ok(from),
                Err(refused) if refused.state.is_over() => return Err(refused),
                Err(_held) => self.life.reaches(|state| state != State::Leased).await,
            };
        }
    }

    /// Freezes it if it is free and unused for `unused_max` at `now`. Blocks for as long as the kernel takes.
    ///
    /// # Errors
    /// [`CgroupError`]; then it runs on.
    pub fn freeze(&self, now: SystemTime, unused_max: Duration) -> Result<(), CgroupError> {
        let unused = now.duration_since(self.last_used_at()).unwrap_or_default();
        if unused < unused_max {
            return Ok(());
        }
        // The step is taken with the reins in hand: whoever leases it right after waits for them, and thaws it then.
        let free = || self.life.step(Event::Freeze).is_ok();
        self.reins.freeze(free).inspect_err(|_| {
            // Refused when it has been leased meanwhile, which has the same end.
            let _running_again = self.life.step(Event::Thaw);
        })
    }

    /// Lets it run again. One that cannot is dead.
    fn thaw(&self) {
        if let Err(error) = self.reins.with(Cgroup::thaw) {
            tracing::error!(container = %self.id, %error, "could not thaw a container");
            self.life.die(DeathReason::Channel("it could not be thawed".to_owned()));
            self.stop.cancel();
        }
    }

    /// Ends it, unless somebody holds it; whether it was ended.
    pub fn retire(&self) -> bool {
        let retired = self.life.end(Event::Retire, DeathReason::Removed).is_ok();
        if retired {
            self.stop.cancel();
        }
        retired
    }
}

/// Why a container is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotHeld {
    /// Somebody else holds it.
    Busy,
    /// It is dead.
    Over,
}

/// An exclusive hold on a container, given back when dropped.
pub struct Hold(Arc<Container>);

impl Drop for Hold {
    fn drop(&mut self) {
        // Refused when it died in the holder's hands.
        let _dead_by_now = self.0.life.step(Event::Return);
    }
}
