//! The socket: bounded connections, bounded waits, and an end that lets running replies finish.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::exit::Exit;

/// How long a connection may take to send a request's head.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a client may leave what was sent to it unread or unacknowledged, in milliseconds. Then the connection is
/// cut, and with it the turn that waits for room, whose container others may want (tcp(7), TCP_USER_TIMEOUT).
const UNREAD_MS_MAX: u32 = 120_000;
/// Rest after `accept` failed, for example because no descriptor is free.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A bound socket.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds the configured address.
    pub async fn bind(config: &Config) -> Result<Self, Exit> {
        let refused = |error: std::io::Error| Exit::failed(format!("listen = {}: {error}", config.listen));
        let socket = TcpListener::bind(config.listen).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        Ok(Self { socket, address })
    }

    /// The address that was bound, with its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stopping`; then takes no more and returns when the open connections are done.
    pub async fn serve(self, router: Router, stopping: CancellationToken, connections_max: usize) {
        let places = Arc::new(Semaphore::new(connections_max));
        let connections = TaskTracker::new();
        loop {
            let place = tokio::select! {
                () = stopping.cancelled() => break,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let Ok(place) = place else { break };
            let accepted = tokio::select! {
                () = stopping.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = serve_one(stream, router.clone(), stopping.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
        drop(self.socket);
        connections.close();
        connections.wait().await;
    }
}

async fn serve_one(stream: tokio::net::TcpStream, router: Router, stopping: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY refused");
    }
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD_MS_MAX) {
        tracing::warn!(%error, "TCP_USER_TIMEOUT refused: a client that reads nothing can hold a container");
    }
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT_MAX).max_buf_size(HEAD_BYTES_MAX.max(64 * 1024));
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
