//! The cells that run now, so that another request can interrupt them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use belljar_ids::ContainerId;
use tokio_util::sync::CancellationToken;

/// One per container at most: who runs a cell holds the container. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct RunningCells(Arc<Mutex<HashMap<ContainerId, CancellationToken>>>);

/// What an interrupt met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Interrupted {
    /// A cell, which has been told to end.
    Cell,
    /// No cell.
    Nothing,
}

impl RunningCells {
    /// Writes down that a cell runs, for as long as the answer lives.
    pub fn enter(&self, container: ContainerId) -> RunningCell {
        let interrupt = CancellationToken::new();
        self.lock().insert(container.clone(), interrupt.clone());
        RunningCell { cells: self.clone(), container, interrupt }
    }

    /// Tells the container's cell to end, as Ctrl-C would, then by force.
    pub fn interrupt(&self, container: &ContainerId) -> Interrupted {
        match self.lock().get(container) {
            Some(interrupt) => {
                interrupt.cancel();
                Interrupted::Cell
            }
            None => Interrupted::Nothing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cell that runs, or stands still until it goes on.
#[derive(Debug)]
pub struct RunningCell {
    cells: RunningCells,
    container: ContainerId,
    interrupt: CancellationToken,
}

impl RunningCell {
    /// Cancelled when somebody interrupts the cell.
    pub fn interrupt(&self) -> CancellationToken {
        self.interrupt.clone()
    }
}

impl Drop for RunningCell {
    fn drop(&mut self) {
        self.cells.lock().remove(&self.container);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_can_be_interrupted_while_it_runs_and_no_longer() {
        let cells = RunningCells::default();
        let [one, other] = [(); 2].map(|()| ContainerId::mint(&mut crate::random::OsIds));
        let (running, neighbour) = (cells.enter(one.clone()), cells.enter(other));
        assert_eq!(cells.interrupt(&one), Interrupted::Cell);
        assert!(running.interrupt().is_cancelled());
        assert!(!neighbour.interrupt().is_cancelled());
        drop(running);
        assert_eq!(cells.interrupt(&one), Interrupted::Nothing);
    }
}
