//! A container's life: a closed set of states, one table of what may follow what, and the one place that keeps it.
//!
//! Nothing else says whether a container can be leased, is frozen or is dead. Whoever wants to change it takes a step,
//! and is refused where the table has none.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::error::DeathReason;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Being made; nobody but its maker knows it.
    Starting,
    /// Complete and nobody's, on a shelf of the pool.
    Pooled,
    /// Somebody's, and free for a lease.
    Ready,
    /// Held.
    Leased,
    /// Free for a lease; its processes do not run until then.
    Frozen,
    /// Nothing can be done with it any more; it is being torn down.
    Dead,
    /// Nothing of it is left on the host.
    Gone,
}

/// What happens to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The pool takes it in.
    Shelve,
    /// It is given to whoever asked for a container.
    Claim,
    /// Somebody takes hold of it.
    Lease,
    /// The holder lets go.
    Return,
    /// Unused for long, it is frozen.
    Freeze,
    /// It could not be frozen after all.
    Thaw,
    /// Ended because nobody uses it; refused while somebody does.
    Retire,
    /// It died, or was removed, whatever it was doing.
    Die,
    /// The last of it was cleared away.
    Clear,
}

/// Every transition there is.
pub const TABLE: &[(State, Event, State)] = &[
    (State::Starting, Event::Shelve, State::Pooled),
    (State::Starting, Event::Claim, State::Ready),
    (State::Starting, Event::Die, State::Dead),
    (State::Pooled, Event::Claim, State::Ready),
    (State::Pooled, Event::Die, State::Dead),
    (State::Ready, Event::Lease, State::Leased),
    (State::Ready, Event::Freeze, State::Frozen),
    (State::Ready, Event::Retire, State::Dead),
    (State::Ready, Event::Die, State::Dead),
    (State::Leased, Event::Return, State::Ready),
    (State::Leased, Event::Die, State::Dead),
    (State::Frozen, Event::Lease, State::Leased),
    (State::Frozen, Event::Thaw, State::Ready),
    (State::Frozen, Event::Retire, State::Dead),
    (State::Frozen, Event::Die, State::Dead),
    (State::Dead, Event::Clear, State::Gone),
];

impl State {
    /// What follows, if the table has it.
    pub fn after(self, event: Event) -> Option<Self> {
        TABLE.iter().find(|(from, by, _)| (*from, *by) == (self, event)).map(|(_, _, to)| *to)
    }

    /// Whether something of it is on the host.
    pub fn takes_room(self) -> bool {
        self != Self::Gone
    }

    /// Whether it will never be leased again.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Dead | Self::Gone)
    }
}

/// The table has no such step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What the container is instead.
    pub state: State,
}

/// One container's life, shared by all who have to do with it.
pub struct Life {
    state: watch::Sender<State>,
    /// Set with the step into [`State::Dead`], never after and never before.
    death: OnceLock<DeathReason>,
}

impl Default for Life {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::Starting), death: OnceLock::new() }
    }
}

impl Life {
    /// What it is now.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Why it died, if it has.
    pub fn death(&self) -> Option<&DeathReason> {
        self.death.get()
    }

    /// Takes a step and tells from which state; [`Event::Retire`] and [`Event::Die`] go by [`Life::end`].
    pub fn step(&self, event: Event) -> Result<State, Refused> {
        self.change(event, || {})
    }

    /// Ends it for `reason`, by [`Event::Retire`] or [`Event::Die`]. The first reason stays.
    pub fn end(&self, event: Event, reason: DeathReason) -> Result<State, Refused> {
        self.change(event, || drop(self.death.set(reason)))
    }

    /// It died for `reason`, unless it had before: the first reason is the true one.
    pub fn die(&self, reason: DeathReason) {
        let _dead_before = self.end(Event::Die, reason);
    }

    /// Nothing is left of it.
    pub fn cleared(&self) {
        if let Err(Refused { state }) = self.step(Event::Clear) {
            tracing::error!(?state, "a container was cleared away before it was dead");
        }
    }

    fn change(&self, event: Event, with: impl FnOnce()) -> Result<State, Refused> {
        let mut outcome = Err(Refused { state: State::Gone });
        self.state.send_if_modified(|state| {
            let from = *state;
            let Some(to) = from.after(event) else {
                outcome = Err(Refused { state: from });
                return false;
            };
            with();
            outcome = Ok(from);
            *state = to;
            true
        });
        outcome
    }

    /// Waits until `wanted` holds, and tells the state in which it does.
    pub async fn reaches(&self, wanted: impl Fn(State) -> bool) -> State {
        let mut watched = self.state.subscribe();
        let reached = watched.wait_for(|state| wanted(*state)).await;
        // The sender lives as long as `self`; should it not, the container is gone.
        reached.map_or(State::Gone, |state| *state)
    }

    /// Waits until nothing is left of it on the host.
    pub async fn gone(&self) {
        self.reaches(|state| state == State::Gone).await;
    }
}

/// Whatever happens to the task that holds it, whoever waits for the end of the container hears of it.
pub struct Obituary(pub Arc<Life>);

impl Drop for Obituary {
    fn drop(&mut self) {
        self.0.die(DeathReason::Channel("its keeper ended".to_owned()));
        let _cleared_before = self.0.step(Event::Clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATES: [State; 7] =
        [State::Starting, State::Pooled, State::Ready, State::Leased, State::Frozen, State::Dead, State::Gone];
    const EVENTS: [Event; 9] = [
        Event::Shelve,
        Event::Claim,
        Event::Lease,
        Event::Return,
        Event::Freeze,
        Event::Thaw,
        Event::Retire,
        Event::Die,
        Event::Clear,
    ];

    fn take(life: &Life, event: Event) -> Result<State, Refused> {
        match event {
            Event::Retire | Event::Die => life.end(event, DeathReason::Removed),
            _ => life.step(event),
        }
    }

    #[test]
    fn no_state_and_event_have_two_ends() {
        for state in STATES {
            for event in EVENTS {
                let rows = TABLE.iter().filter(|(from, by, _)| (*from, *by) == (state, event)).count();
                assert!(rows <= 1, "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn every_state_can_be_reached_and_every_live_one_can_die() {
        let mut reached = vec![State::Starting];
        for _ in STATES {
            let next: Vec<_> =
                TABLE.iter().filter(|(from, _, _)| reached.contains(from)).map(|(_, _, to)| *to).collect();
            reached.extend(next);
        }
        for state in STATES {
            assert!(reached.contains(&state), "{state:?}");
            assert_eq!(state.after(Event::Die), (!state.is_over()).then_some(State::Dead), "{state:?}");
        }
        assert!(TABLE.iter().all(|(from, _, _)| *from != State::Gone), "nothing comes back");
    }

    proptest! {
        /// Whatever happens in whatever order: a step is taken exactly where the table has it, a death has its reason
        /// and is for good, nobody holds what is not theirs.
        #[test]
        fn any_order_of_events_keeps_the_rules(events in proptest::collection::vec(0..EVENTS.len(), 0..60)) {
            let life = Life::default();
            let mut holders = 0_u32;
            for event in events.into_iter().map(|index| EVENTS[index]) {
                let before = life.state();
                let taken = take(&life, event);
                match before.after(event) {
                    Some(after) => prop_assert_eq!((taken, life.state()), (Ok(before), after)),
                    None => prop_assert_eq!((taken, life.state()), (Err(Refused { state: before }), before)),
                }
                match (event, taken) {
                    (Event::Lease, Ok(_)) => holders += 1,
                    (Event::Return | Event::Die, Ok(State::Leased)) => holders -= 1,
                    _ => {}
                }
                prop_assert_eq!(holders, u32::from(life.state() == State::Leased));
                prop_assert_eq!(life.death().is_some(), life.state().is_over());
                prop_assert!(!before.is_over() || life.state().is_over());
            }
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_the_end_hears_of_it() {
        let life = std::sync::Arc::new(Life::default());
        let waiting = tokio::spawn({
            let life = std::sync::Arc::clone(&life);
            async move { life.gone().await }
        });
        life.step(Event::Claim).expect("starts");
        life.end(Event::Die, DeathReason::OutOfMemory).expect("lives");
        assert_eq!(life.end(Event::Die, DeathReason::Removed), Err(Refused { state: State::Dead }));
        assert_eq!(life.death(), Some(&DeathReason::OutOfMemory));
        life.step(Event::Clear).expect("dead");
        waiting.await.expect("heard");
    }

    /// The table as it stands in the documents.
    fn rendered() -> String {
        let mut text = String::from("| from | event | to |\n|---|---|---|\n");
        for (from, event, to) in TABLE {
            text.push_str(&format!("| {from:?} | {event:?} | {to:?} |\n"));
        }
        text
    }

    /// `BLESS=1` writes it anew.
    #[test]
    fn the_documents_have_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/container-states.md");
        let head = "# The states of a container\n\nMade from `crates/sandbox/src/state.rs` by its test; `BLESS=1 cargo \
                    nextest run -p belljar-sandbox the_documents_have_this_table` writes it anew. What is not in the \
                    table cannot happen.\n\n";
        let whole = format!("{head}{}", rendered());
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &whole).expect("the page can be written");
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), whole);
    }
}
