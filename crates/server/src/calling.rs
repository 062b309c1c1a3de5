//! Calls whose code has called tools of the client, for clients that lose them between two pauses.
//!
//! Nothing is decided here: what waits, and for whom, is in `parked`. This only lets a conversation be read as it was
//! (divergence/lost-callers.md).

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use belljar_ids::CellMark;
use belljar_store::WorkspaceId;
use belljar_wire::block::ServerToolUseBlock;

/// How long a call is remembered. Its code waits for minutes; its conversation may come back on the same day.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of all calls that are remembered; the oldest go first.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The calls of one server.
#[derive(Debug, Default)]
pub struct CallingCells(Mutex<Cells>);

type Key = (WorkspaceId, CellMark);

#[derive(Debug, Default)]
struct Cells {
    calls: HashMap<Key, ServerToolUseBlock>,
    /// Each once, the oldest first, with its size.
    by_age: VecDeque<(Instant, usize, Key)>,
    bytes: usize,
}

impl CallingCells {
    /// Writes down a call when its code calls for the first time. Later the conversation may have a shortened one (wire.md §10.4).
    pub fn enter(&self, workspace: &WorkspaceId, call: ServerToolUseBlock, now: Instant) {
        let Some(mark) = call.id.mark() else { return };
        let key = (workspace.clone(), mark);
        let bytes = call.input.to_string().len();
        let mut cells = self.lock();
        if cells.calls.contains_key(&key) {
            return;
        }
        cells.calls.insert(key.clone(), call);
        cells.by_age.push_back((now, bytes, key));
        cells.bytes = cells.bytes.saturating_add(bytes);
        while cells.bytes > BYTES_MAX {
            cells.forget_the_oldest();
        }
    }

    /// Every call, the oldest first, with its workspace and since when it is remembered.
    pub fn all(&self) -> Vec<(WorkspaceId, ServerToolUseBlock, Instant)> {
        let cells = self.lock();
        let of = |(since, _, key): &(Instant, usize, Key)| Some((key.0.clone(), cells.calls.get(key)?.clone(), *since));
        cells.by_age.iter().filter_map(of).collect()
    }

    /// Those of a workspace that have one of these marks.
    pub fn of(&self, workspace: &WorkspaceId, marks: &[CellMark]) -> Vec<ServerToolUseBlock> {
        if marks.is_empty() {
            return Vec::new();
        }
        let cells = self.lock();
        marks.iter().filter_map(|mark| cells.calls.get(&(workspace.clone(), *mark)).cloned()).collect()
    }

    /// Forgets what is too old by now.
    pub fn sweep(&self, now: Instant) {
        let mut cells = self.lock();
        while cells.by_age.front().is_some_and(|(at, _, _)| now.saturating_duration_since(*at) >= REMEMBERED) {
            cells.forget_the_oldest();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cells> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cells {
    fn forget_the_oldest(&mut self) {
        if let Some((_, bytes, key)) = self.by_age.pop_front() {
            self.calls.remove(&key);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::random::OsIds;
    use belljar_ids::{ServerToolUseId, ToolUseId};
    use serde_json::{Map, json};

    fn call(code: &str) -> ServerToolUseBlock {
        let (id, name) = (ServerToolUseId::mint(&mut OsIds), "code_execution".to_owned());
        ServerToolUseBlock { id, name, input: json!({ "code": code }), caller: None, rest: Map::new() }
    }

    fn mark(call: &ServerToolUseBlock) -> CellMark {
        ToolUseId::mint_in(&call.id, &mut OsIds).cell_mark().expect("minted")
    }

    #[test]
    fn a_call_is_known_in_its_workspace_for_a_day_as_it_was_first() {
        let (cells, now) = (CallingCells::default(), clock::instant_now());
        let [mine, theirs] = ["mine", "theirs"].map(|name| name.parse::<WorkspaceId>().expect("a workspace"));
        let (first, second) = (call("one"), call("two"));
        cells.enter(&mine, first.clone(), now);
        cells.enter(&mine, ServerToolUseBlock { input: json!({}), ..first.clone() }, now);
        cells.enter(&mine, second.clone(), now + Duration::from_secs(1));
        let marks = [mark(&second), mark(&first), mark(&call("nobody's"))];
        assert_eq!(cells.of(&mine, &marks), [second.clone(), first]);
        assert_eq!(cells.of(&theirs, &marks), []);
        cells.sweep(now + REMEMBERED);
        assert_eq!(cells.of(&mine, &marks), [second]);
        cells.sweep(now + REMEMBERED + Duration::from_secs(1));
        assert_eq!(cells.of(&mine, &marks), []);
        assert_eq!(cells.lock().bytes, 0);
    }

    #[test]
    fn there_is_only_so_much() {
        let (cells, now) = (CallingCells::default(), clock::instant_now());
        let mine = "mine".parse::<WorkspaceId>().expect("a workspace");
        let text = "x".repeat(BYTES_MAX / 2);
        let calls = [call(&text), call("small"), call(&text)];
        calls.iter().for_each(|call| cells.enter(&mine, call.clone(), now));
        let kept: Vec<_> = cells.of(&mine, &calls.each_ref().map(mark)).into_iter().map(|call| call.id).collect();
        assert_eq!(kept, [calls[1].id.clone(), calls[2].id.clone()]);
    }
}
