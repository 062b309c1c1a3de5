//! Pieces of a body that come at once, put together. What reads them for a reply has much to wake up for each; a task of their own has little.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{Stream, StreamExt as _, poll_fn};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, yield_now};

use super::Broken;

/// How much is put together at most. As much again may wait, and as much again be on its way: then the connection is not read.
const GATHERED_BYTES_MAX: usize = 4 * 1024;

type Piece = Result<Bytes, Broken>;

/// The same bytes in fewer pieces: all that comes until the runtime has nothing else to do. Nothing is held back for what may still come.
/// Dropping it drops `pieces`.
pub(super) fn gathered(pieces: impl Stream<Item = Piece> + Send + 'static) -> impl Stream<Item = Piece> + Send {
    let (sender, mut receiver) = mpsc::channel(1);
    // It ends its task when it is dropped.
    let mut task = JoinSet::new();
    task.spawn(gather(pieces, sender));
    poll_fn(move |context| {
        let _held = &task;
        receiver.poll_recv(context)
    })
}

async fn gather(pieces: impl Stream<Item = Piece>, sender: mpsc::Sender<Piece>) {
    let mut pieces = std::pin::pin!(pieces);
    while let Some(piece) = pieces.next().await {
        let end = match piece {
            Err(broken) => Some(broken),
            Ok(first) => {
                let (whole, end) = with_the_next(first, &mut pieces).await;
                if sender.send(Ok(whole)).await.is_err() {
                    return;
                }
                end
            }
        };
        if let Some(broken) = end {
            // Whoever has gone does not want to know.
            let _gone = sender.send(Err(broken)).await;
            return;
        }
    }
}

/// `first`, with what comes at once, and how the body broke off behind it.
async fn with_the_next(first: Bytes, pieces: &mut (impl Stream<Item = Piece> + Unpin)) -> (Bytes, Option<Broken>) {
    let mut whole = BytesMut::new();
    while first.len().max(whole.len()) < GATHERED_BYTES_MAX {
        let next = tokio::select! {
            biased;
            next = pieces.next() => next,
            () = yield_now() => None,
        };
        let next = match next {
            None => break,
            Some(Err(broken)) => return (joined(first, whole), Some(broken)),
            Some(Ok(next)) => next,
        };
        if whole.is_empty() {
            whole.reserve(4 * (first.len() + next.len()));
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&next);
    }
    (joined(first, whole), None)
}

fn joined(first: Bytes, whole: BytesMut) -> Bytes {
    if whole.is_empty() { first } else { whole.freeze() }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn piece(text: &'static str) -> Piece {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn what_comes_at_once_is_one_piece() {
        let cases: &[(&[Piece], &[Piece])] = &[
            (&[], &[]),
            (&[piece("a")], &[piece("a")]),
            (&[piece("a"), piece(""), piece("b"), piece("c")], &[piece("abc")]),
            (&[piece("a"), piece("b"), Err(Broken::TimedOut)], &[piece("ab"), Err(Broken::TimedOut)]),
            (&[Err(Broken::TimedOut), piece("lost")], &[Err(Broken::TimedOut)]),
        ];
        for (pieces, expected) in cases {
            let seen: Vec<Piece> = gathered(stream::iter(pieces.to_vec())).collect().await;
            assert_eq!(seen, *expected);
        }
    }

    #[tokio::test]
    async fn nothing_waits_for_what_may_still_come() {
        let (sender, mut receiver) = mpsc::channel(8);
        let mut seen = Box::pin(gathered(poll_fn(move |context| receiver.poll_recv(context))));
        for text in ["a", "b"] {
            sender.send(piece(text)).await.expect("it is read");
            assert_eq!(seen.next().await, Some(piece(text)));
        }
        drop(sender);
        assert_eq!(seen.next().await, None);
    }

    #[tokio::test]
    async fn no_more_is_put_together_than_may_be() {
        let many = stream::iter((0..100).map(|_| Ok(Bytes::from_static(&[7; 1000]))));
        let lengths: Vec<usize> = gathered(many).map(|piece| piece.map_or(0, |piece| piece.len())).collect().await;
        assert_eq!(lengths.iter().sum::<usize>(), 100_000);
        assert!(lengths.iter().all(|length| *length < GATHERED_BYTES_MAX + 1000), "{lengths:?}");
    }

    #[tokio::test]
    async fn what_is_large_goes_through_as_it_is() {
        let pieces = [7, 8].map(|byte| Ok(Bytes::from(vec![byte; GATHERED_BYTES_MAX])));
        let seen: Vec<Piece> = gathered(stream::iter(pieces.clone())).collect().await;
        assert_eq!(seen, pieces);
    }

    #[tokio::test]
    async fn it_reads_no_further_than_it_is_read() {
        let (sender, mut receiver) = mpsc::channel::<Piece>(1);
        let mut seen = Box::pin(gathered(poll_fn(move |context| receiver.poll_recv(context))));
        let big = Bytes::from_static(&[7; GATHERED_BYTES_MAX]);
        let flood = async {
            let mut sent = 0;
            // As soon as nobody takes more: the other tasks have all had their turns.
            while tokio::time::timeout(std::time::Duration::from_secs(1), sender.send(Ok(big.clone()))).await.is_ok() {
                sent += 1;
            }
            sent
        };
        tokio::time::pause();
        assert!(flood.await < 6, "it is bounded by what may wait");
        assert!(seen.next().await.is_some());
    }

    #[tokio::test]
    async fn dropped_it_lets_go_of_the_body() {
        let (sender, mut receiver) = mpsc::channel::<Piece>(1);
        let seen = gathered(poll_fn(move |context| receiver.poll_recv(context)));
        drop(seen);
        sender.closed().await;
    }
}
