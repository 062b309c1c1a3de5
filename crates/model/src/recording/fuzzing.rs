//! What the fuzz target (`fuzz/`) sees of recordings: bytes of a file in, turns out.

use std::path::Path;

use super::{RecordedTurn, Recording, RecordingError};

/// Every exchange of such a file, as a turn.
///
/// # Errors
/// It is no recording.
pub async fn shown(path: &Path) -> Result<Vec<RecordedTurn>, RecordingError> {
    let recording = Recording::open(path)?;
    let mut turns = Vec::new();
    for number in 1..=recording.count() {
        turns.push(recording.turn(number).await?);
    }
    Ok(turns)
}
