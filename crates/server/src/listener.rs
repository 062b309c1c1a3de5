//! The socket: bounded connections, bounded waits, and an end that lets running replies finish.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use belljar_sandbox::handover::HandedFd;
use hyper::service::{Service as _, service_fn};
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
/// For the first request of a connection that was accepted just before the server is to end.
const FIRST_REQUEST_WAIT_MAX: Duration = Duration::from_secs(1);
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

    /// The socket that the program before this one had, if the configuration still wants its address; else a new one.
    pub async fn inherited(handed: HandedFd, config: &Config) -> Result<Self, Exit> {
        let refused = |error: std::io::Error| Exit::failed(format!("the socket that was handed over: {error}"));
        let socket = std::net::TcpListener::from(handed.take_over().map_err(|errno| refused(errno.into()))?);
        let address = socket.local_addr().map_err(refused)?;
        let wanted = config.listen.ip() == address.ip() && [0, address.port()].contains(&config.listen.port());
        if !wanted {
            drop(socket);
            return Self::bind(config).await;
        }
        Ok(Self { socket: TcpListener::from_std(socket).map_err(refused)?, address })
    }

    /// A second descriptor of the socket, for the program that this process is about to become: whoever connects waits there
    /// until that one accepts.
    pub fn for_the_next(&self) -> std::io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
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
    let (begun, router) = (CancellationToken::new(), TowerToHyperService::new(router));
    let service = service_fn(|request| {
        begun.cancel();
        router.call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // Told to end before it has read anything, a connection is closed on the spot, whatever its client has sent by then.
    let may_end = async {
        stopping.cancelled().await;
        let _without_a_request = tokio::time::timeout(FIRST_REQUEST_WAIT_MAX, begun.cancelled()).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = may_end => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
