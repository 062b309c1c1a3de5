//! Where a turn's events go: to its client, and to whoever asks for the same continuation again.

use std::future::Future;

use belljar_wire::event::StreamEvent;
use tokio::sync::mpsc;

use crate::continuations::{End, Teller};
use crate::driver::Sent;

/// See the module's head.
pub struct Sink {
    client: mpsc::Sender<Sent>,
    teller: Option<Teller>,
    begun: bool,
}

impl Sink {
    /// For a client alone.
    pub fn new(client: mpsc::Sender<Sent>) -> Self {
        Self { client, teller: None, begun: false }
    }

    /// For a client, and for those who ask again.
    pub fn telling(client: mpsc::Sender<Sent>, teller: Teller) -> Self {
        Self { client, teller: Some(teller), begun: false }
    }

    /// Sends; waits for a slow client. That it is gone is no failure: [`Sink::when_client_gone`] says so where it matters.
    pub async fn send(&mut self, sent: Sent) {
        self.begun = true;
        if let Some(teller) = &self.teller {
            teller.note(&sent);
        }
        let _gone = self.client.send(sent).await;
    }

    /// Sends what the reply is whole without, unless it would be the first to come.
    pub async fn send_beside(&mut self, event: StreamEvent) {
        if self.begun {
            self.send(Sent::Event(event)).await;
        }
    }

    /// Whether anything was sent: until then the reply's status is open, and a ping would decide it.
    pub const fn begun(&self) -> bool {
        self.begun
    }

    /// Waits until nobody will read the rest. A continuation's events are read by whoever asks again.
    pub fn when_client_gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let client = self.teller.is_none().then(|| self.client.clone());
        async move {
            match client {
                Some(client) => client.closed().await,
                None => std::future::pending().await,
            }
        }
    }

    /// The turn came to its own end: what was sent is the answer.
    pub fn complete(&mut self) {
        if let Some(teller) = self.teller.take() {
            teller.ended(End::Kept);
        }
    }
}
