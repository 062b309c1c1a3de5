//! What running code writes, told while it runs (`belljar-live-output: 1`).

use belljar_ids::ServerToolUseId;
use belljar_sandbox::{LiveChunk, Stream};
use belljar_wire::event::{OutputStream, StreamEvent};
use tokio::sync::mpsc;

use crate::utf8::Utf8Pieces;

/// Pieces that may wait; a full queue slows the code down to the client's pace.
const PIECES_WAITING_MAX: usize = 16;

/// The listening end, for the calls of one reply: they run one after another.
#[derive(Debug)]
pub struct LiveOutput {
    pieces: mpsc::Receiver<LiveChunk>,
    stdout: Told,
    stderr: Told,
}

/// How much of a stream has been told.
#[derive(Debug, Default)]
struct Told {
    bytes: u64,
    text: Utf8Pieces,
}

impl LiveOutput {
    /// Both ends.
    pub fn pair() -> (mpsc::Sender<LiveChunk>, Self) {
        let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        (sender, Self { pieces, stdout: Told::default(), stderr: Told::default() })
    }

    /// The next piece, as an event. Cancel-safe.
    pub async fn next(&mut self, call: &ServerToolUseId) -> StreamEvent {
        loop {
            match self.pieces.recv().await {
                Some(piece) => {
                    if let Some(event) = self.event(call, piece) {
                        return event;
                    }
                }
                // The sender lives as long as the turn.
                None => std::future::pending().await,
            }
        }
    }

    /// The code has ended, or waits: what it has written until then.
    pub fn rest(&mut self, call: &ServerToolUseId) -> Vec<StreamEvent> {
        let mut events = Vec::new();
        while let Ok(piece) = self.pieces.try_recv() {
            events.extend(self.event(call, piece));
        }
        events
    }

    /// Another call begins, whose streams are its own.
    pub fn begin(&mut self) {
        self.stdout = Told::default();
        self.stderr = Told::default();
    }

    fn event(&mut self, call: &ServerToolUseId, piece: LiveChunk) -> Option<StreamEvent> {
        let (stream, told) = match piece.stream {
            Stream::Stdout => (OutputStream::Stdout, &mut self.stdout),
            Stream::Stderr => (OutputStream::Stderr, &mut self.stderr),
        };
        let offset = told.bytes - told.text.unfinished_bytes();
        told.bytes += piece.bytes.len() as u64;
        let text = told.text.push(&piece.bytes);
        (!text.is_empty()).then(|| StreamEvent::BelljarOutput { tool_use_id: call.clone(), stream, offset, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsIds;

    #[tokio::test]
    async fn pieces_say_where_they_stand() {
        let (sender, mut live) = LiveOutput::pair();
        let call = ServerToolUseId::mint(&mut OsIds);
        // The second character is cut in two.
        let written: [(Stream, &[u8]); 4] =
            [(Stream::Stdout, b"a\xc3"), (Stream::Stderr, b"x"), (Stream::Stdout, b"\xa9b"), (Stream::Stdout, b"c")];
        for (stream, bytes) in written {
            sender.send(LiveChunk { stream, bytes: bytes.to_vec().into() }).await.expect("somebody listens");
        }
        let first = live.next(&call).await;
        let told = [first].into_iter().chain(live.rest(&call)).map(|event| match event {
            StreamEvent::BelljarOutput { stream, offset, text, .. } => (stream, offset, text),
            other => panic!("another event: {other:?}"),
        });
        let expected = [
            (OutputStream::Stdout, 0, "a"),
            (OutputStream::Stderr, 0, "x"),
            (OutputStream::Stdout, 1, "\u{e9}b"),
            (OutputStream::Stdout, 4, "c"),
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected.map(|(stream, offset, text)| (stream, offset, text.to_owned())));
        live.begin();
        sender.send(LiveChunk { stream: Stream::Stdout, bytes: "d".into() }).await.expect("somebody listens");
        assert!(matches!(live.next(&call).await, StreamEvent::BelljarOutput { offset: 0, .. }));
    }
}
