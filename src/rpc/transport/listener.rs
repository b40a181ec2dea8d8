//! Accepts connections and serves each one in its own task.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use prometheus::IntCounter;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    backpressure::{ConnectionLoad, Load},
    connection::{Serve, serve},
    eviction::{ConnectionSlot, Connections},
    peer::Peer,
    tls::Tls,
};
use crate::{
    ops::metrics::{ConnectionMetrics, Metrics},
    rpc::limits::ConnectionLimits,
    util::panics::contain,
};

/// Pause after a failed accept. The usual cause is that the process has no file
/// descriptors left. One is closed for the next connection, which takes less time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(2);

/// Serves connections until `stop` completes. Then accepts no more, and waits until all
/// connections have drained. Cuts them if the future is dropped before.
pub async fn listen(
    listener: TcpListener,
    tls: Option<Tls>,
    limits: ConnectionLimits,
    load: Arc<Load>,
    metrics: &Metrics,
    service: impl Serve,
    stop: impl Future<Output = ()>,
) {
    let known = limits.known_clients.clone();
    let connections = Connections::new(limits.connections, known, metrics.connections().clone());
    let acceptor = Acceptor {
        tls,
        limits: Arc::new(limits),
        metrics: metrics.connections().clone(),
        panics: metrics.panics().clone(),
        shutdown: CancellationToken::new(),
        load,
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
        let Some((stream, address)) = accepted_or_pause(accepted, &connections).await else {
            continue;
        };
        acceptor.metrics.accepted.inc();
        let slot = connections.add(address.ip());
        let wait = connections.wait(address.ip());
        let (acceptor, service) = (acceptor.clone(), service.clone());
        let panics = acceptor.panics.clone();
        tasks.spawn(async move {
            let serving = async {
                // Its client is not even told which protocol is spoken.
                if let Some(wait) = wait {
                    sleep(wait).await;
                }
                acceptor
                    .serve(stream, address, Arc::clone(&slot), service)
                    .await;
            };
            let serving = async {
                tokio::select! {
                    () = serving => {}
                    () = slot.evicted() => {}
                }
            };
            contain("connection", &panics, serving).await;
        });
    }
    drop(listener);
    acceptor.shutdown.cancel();
    while tasks.join_next().await.is_some() {}
}

async fn accepted_or_pause(
    accepted: io::Result<(TcpStream, SocketAddr)>,
    connections: &Connections,
) -> Option<(TcpStream, SocketAddr)> {
    match accepted {
        Ok((stream, address)) => {
            // Answers are small, and a caller waits for each.
            let _ = stream.set_nodelay(true);
            Some((stream, address))
        }
        Err(error) if is_client_failure(&error) => None,
        Err(error) => {
            connections.note_accept_failure(&error);
            connections.make_room();
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
    panics: IntCounter,
    shutdown: CancellationToken,
    load: Arc<Load>,
}

impl Acceptor {
    async fn serve(
        self,
        stream: TcpStream,
        address: SocketAddr,
        slot: Arc<ConnectionSlot>,
        service: impl Serve,
    ) {
        let load = ConnectionLoad::new(&self.load, address.ip());
        let stall_timeout = self.limits.stall_timeout;
        let peer = |subject| Peer::new(address, subject, slot, load, stall_timeout);
        let shutdown = self.shutdown.cancelled();
        let Some(tls) = self.tls else {
            let (peer, panics) = (peer(None), self.panics);
            return serve(stream, peer, service, &self.limits, panics, shutdown).await;
        };
        let handshake = timeout(self.limits.handshake_timeout, tls.accept(stream)).await;
        match handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok((stream, subject)) => {
                let (peer, panics) = (peer(subject), self.panics);
                serve(stream, peer, service, &self.limits, panics, shutdown).await;
            }
            Err(error) => {
                self.metrics.refused_handshake.inc();
                // Not a warning, because any client can cause it as often as it likes.
                tracing::debug!(peer = %address, %error, "TLS handshake failed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::{Ready, ready},
        sync::atomic::{AtomicBool, Ordering},
        task::{Context, Poll},
    };

    use h2::{RecvStream, client::SendRequest};
    use tokio::{sync::oneshot, task::JoinHandle};
    use tonic::{body::Body, codegen::Bytes};
    use tower::Service;

    use super::*;
    use crate::config::Settings;

    #[derive(clap::Parser)]
    struct Serve {
        #[command(flatten)]
        settings: Settings,
    }

    fn limits() -> ConnectionLimits {
        let arguments = ["serve", "--database-url", "postgres://localhost"];
        let serve = <Serve as clap::Parser>::parse_from(arguments);
        serve.settings.check().unwrap().limits.connection
    }

    /// A service that cannot be cloned once it is broken. hyper clones it for each call, in the
    /// task of the connection.
    struct Fragile(Arc<AtomicBool>);

    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert!(!self.0.load(Ordering::Relaxed), "a fault of ours");
            Fragile(Arc::clone(&self.0))
        }
    }

    impl Service<http::Request<Body>> for Fragile {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            ready(Ok(http::Response::new(Body::empty())))
        }
    }

    /// A service that listens until `stop` is dropped.
    struct Server {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    }

    async fn start(service: impl super::Serve + Sync, metrics: &Metrics) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let metrics = metrics.clone();
        let task = tokio::spawn(async move {
            let stop = async { drop(stopped.await) };
            let load = Load::new(1);
            listen(listener, None, limits(), load, &metrics, service, stop).await;
        });
        Server {
            address,
            stop,
            task,
        }
    }

    async fn call(client: &SendRequest<Bytes>) -> Result<http::Response<RecvStream>, h2::Error> {
        let request = http::Request::post("http://localhost/a.B/C").body(());
        let mut client = client.clone().ready().await.unwrap();
        let (answer, _) = client.send_request(request.unwrap(), true).unwrap();
        answer.await
    }

    #[tokio::test]
    async fn a_connection_whose_task_panics_is_closed_and_counted() {
        let metrics = Metrics::new().unwrap();
        let is_broken = Arc::new(AtomicBool::new(false));
        let server = start(Fragile(Arc::clone(&is_broken)), &metrics).await;
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        call(&client).await.unwrap();
        assert_eq!(metrics.connections().open.get(), 1);
        is_broken.store(true, Ordering::Relaxed);
        call(&client).await.unwrap_err();
        let _ = connection.await.unwrap();
        drop(server.stop);
        server.task.await.unwrap();
        assert_eq!(metrics.panics().get(), 1);
        assert_eq!(metrics.connections().open.get(), 0);
    }

    #[tokio::test]
    async fn calls_of_a_connection_that_closes_for_refused_calls_can_be_retried() {
        let metrics = Metrics::new().unwrap();
        let service = tower::service_fn(|request: http::Request<Body>| {
            let peer = request.extensions().get::<Arc<Peer>>().unwrap();
            for _ in 0..300 {
                peer.slot.count_refused_call();
            }
            ready(Ok::<_, Infallible>(http::Response::new(Body::empty())))
        });
        let server = start(service, &metrics).await;
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        // They arrive together. The first one makes the connection close.
        let (first, second) = tokio::join!(call(&client), call(&client));
        first.unwrap();
        let reset = second.unwrap_err();
        assert_eq!(reset.reason(), Some(h2::Reason::REFUSED_STREAM), "{reset}");
        connection.await.unwrap().unwrap_err();
        drop(server.stop);
        server.task.await.unwrap();
        assert_eq!(metrics.connections().refused_calls.get(), 1);
    }
}
