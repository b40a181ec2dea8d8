//! Accepts connections and serves each one in its own task.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{Serve, serve},
    eviction::{ConnectionSlot, Connections},
    peer::Peer,
    tls::Tls,
};
use crate::{ops::metrics::ConnectionMetrics, rpc::limits::ConnectionLimits};

/// Pause after a failed accept. The usual cause is that the process has no file
/// descriptors left, and some are closed by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` completes. Then accepts no more, and waits until all
/// connections have drained. Cuts them if the future is dropped before.
pub async fn listen(
    listener: TcpListener,
    tls: Option<Tls>,
    limits: ConnectionLimits,
    metrics: ConnectionMetrics,
    service: impl Serve,
    stop: impl Future<Output = ()>,
) {
    let connections = Connections::new(limits.connections, metrics.clone());
    let acceptor = Acceptor {
        tls,
        limits: Arc::new(limits),
        metrics,
        shutdown: CancellationToken::new(),
    };
    let mut tasks = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            // Frees the memory of tasks that have ended.
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Some((stream, address)) = accepted_or_pause(accepted).await else {
            continue;
        };
        acceptor.metrics.accepted.inc();
        let slot = connections.add();
        let (acceptor, service) = (acceptor.clone(), service.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = acceptor.serve(stream, address, Arc::clone(&slot), service) => {}
                () = slot.evicted() => {}
            }
        });
    }
    drop(listener);
    acceptor.shutdown.cancel();
    while tasks.join_next().await.is_some() {}
}

async fn accepted_or_pause(
    accepted: io::Result<(TcpStream, SocketAddr)>,
) -> Option<(TcpStream, SocketAddr)> {
    match accepted {
        Ok((stream, address)) => {
            // Answers are small, and a caller waits for each.
            let _ = stream.set_nodelay(true);
            Some((stream, address))
        }
        Err(error) if is_client_failure(&error) => None,
        Err(error) => {
            tracing::warn!(%error, "cannot accept connections");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Returns whether an accept failed only because the client has closed the connection.
fn is_client_failure(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Everything that the connections of a listener share. Cheap to clone.
#[derive(Clone)]
struct Acceptor {
    tls: Option<Tls>,
    limits: Arc<ConnectionLimits>,
    metrics: ConnectionMetrics,
    shutdown: CancellationToken,
}

impl Acceptor {
    async fn serve(
        self,
        stream: TcpStream,
        address: SocketAddr,
        slot: Arc<ConnectionSlot>,
        service: impl Serve,
    ) {
        let peer = |subject| Peer::new(address, subject, slot, self.limits.stall_timeout);
        let shutdown = self.shutdown.cancelled();
        let Some(tls) = self.tls else {
            return serve(stream, peer(None), service, &self.limits, shutdown).await;
        };
        let handshake = timeout(self.limits.handshake_timeout, tls.accept(stream)).await;
        match handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok((stream, subject)) => {
                serve(stream, peer(subject), service, &self.limits, shutdown).await;
            }
            Err(error) => {
                self.metrics.refused_handshake.inc();
                // Not a warning, because any client can cause it as often as it likes.
                tracing::debug!(peer = %address, %error, "TLS handshake failed");
            }
        }
    }
}
