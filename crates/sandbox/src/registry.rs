//! Which containers there are, by name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use belljar_ids::ContainerId;

use crate::container::Container;
use crate::error::SandboxError;
use crate::sandbox::ContainerStatus;
use crate::state::State;

/// See the module's head.
pub struct Registry {
    containers_max: usize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_id: HashMap<ContainerId, Entry>,
    doors: Doors,
}

#[derive(Default, PartialEq, Eq)]
enum Doors {
    #[default]
    Open,
    Closed,
}

enum Entry {
    /// A place for one that is being made.
    Reserved,
    Entered(Arc<Container>),
}

impl Entry {
    fn state(&self) -> State {
        match self {
            Self::Reserved => State::Starting,
            Self::Entered(container) => container.life.state(),
        }
    }
}

impl Registry {
    pub fn new(containers_max: usize) -> Self {
        Self { containers_max, entries: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Every change of the registry is a single call on the map: a panic elsewhere leaves it whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a container that is about to be made.
    pub fn reserve(&self, id: &ContainerId) -> Result<(), SandboxError> {
        let mut entries = self.lock();
        if entries.doors == Doors::Closed {
            return Err(SandboxError::Closed);
        }
        if entries.by_id.contains_key(id) {
            return Err(SandboxError::Exists(id.clone()));
        }
        let containers_max = self.containers_max;
        // Only a map this large can be full, or hold too many dead: most of the time nothing is counted.
        if entries.by_id.len() >= containers_max {
            entries.forget_gone_beyond(containers_max);
            if entries.by_id.values().filter(|entry| entry.state().takes_room()).count() >= containers_max {
                return Err(SandboxError::Full { containers_max });
            }
        }
        entries.by_id.insert(id.clone(), Entry::Reserved);
        Ok(())
    }

    /// Turns a place into a container.
    pub fn enter(&self, container: Arc<Container>) -> ContainerStatus {
        let status = container.status();
        self.lock().by_id.insert(status.id.clone(), Entry::Entered(container));
        status
    }

    /// Gives a place up.
    pub fn give_up(&self, id: &ContainerId) {
        self.lock().by_id.remove(id);
    }

    pub fn find(&self, id: &ContainerId) -> Option<Arc<Container>> {
        match self.lock().by_id.get(id) {
            Some(Entry::Entered(container)) => Some(Arc::clone(container)),
            Some(Entry::Reserved) | None => None,
        }
    }

    /// Finds one and forgets it.
    pub fn take(&self, id: &ContainerId) -> Option<Arc<Container>> {
        let mut entries = self.lock();
        match entries.by_id.get(id) {
            Some(Entry::Entered(container)) => {
                let container = Arc::clone(container);
                entries.by_id.remove(id);
                Some(container)
            }
            Some(Entry::Reserved) | None => None,
        }
    }

    /// All but those that are being made.
    pub fn started(&self) -> Vec<Arc<Container>> {
        let entries = self.lock();
        let started = entries.by_id.values().filter_map(|entry| match entry {
            Entry::Reserved => None,
            Entry::Entered(container) => Some(Arc::clone(container)),
        });
        started.collect()
    }

    /// The state of each.
    pub fn states(&self) -> Vec<State> {
        self.lock().by_id.values().map(Entry::state).collect()
    }

    /// Takes no more.
    pub fn close(&self) {
        self.lock().doors = Doors::Closed;
    }

    pub fn clear(&self) {
        self.lock().by_id.clear();
    }
}

impl Entries {
    /// Keeps the memory of dead containers bounded: the longest unused are forgotten first.
    fn forget_gone_beyond(&mut self, gone_max: usize) {
        let mut gone: Vec<_> = self
            .by_id
            .iter()
            .filter_map(|(id, entry)| match entry {
                Entry::Entered(container) if !entry.state().takes_room() => {
                    Some((container.last_used_at(), id.clone()))
                }
                Entry::Entered(_) | Entry::Reserved => None,
            })
            .collect();
        let surplus = gone.len().saturating_sub(gone_max);
        gone.sort_unstable();
        for (_, id) in gone.into_iter().take(surplus) {
            self.by_id.remove(&id);
        }
    }
}
