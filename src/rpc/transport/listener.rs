//! Accepts connections, as many as may be.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    connection::{Serve, serve},
    eviction::{Guests, Listed},
    peer::Peer,
    tls::Tls,
};
use crate::{ops::metrics::ConnectionMetrics, rpc::limits::ConnectionLimits};

/// How long a client has to agree with us on TLS.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// How many connections beyond the limit are still served, to tell callers that
/// there are too many, and a load balancer how we are.
const SURPLUS: usize = 32;

/// How long a connection that is told to go may take to leave its place to another.
const MOVING: Duration = Duration::from_secs(1);

/// How long to wait if connections can't be accepted: the process has too many
/// files open, and some of them may be closed by then.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` ends, then accepts no more and waits until all
/// have ended. Dropped before, it cuts them off.
pub async fn listen(
    listener: TcpListener,
    tls: Option<Tls>,
    limits: ConnectionLimits,
    metrics: ConnectionMetrics,
    service: impl Serve,
    stop: impl Future<Output = ()>,
) {
    let mut room = Room::new(limits.connections);
    let limits = Arc::new(limits);
    let (begin_drain, drain) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            // What has ended is forgotten.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Some((stream, address)) = accepted_or_pause(accepted).await else {
            continue;
        };
        metrics.accepted.inc();
        let Some(place) = room.place() else {
            // Not even one to tell that it is one too many: closed at once.
            metrics.too_many.inc();
            continue;
        };
        let connection = Accepted {
            stream,
            address,
            place,
            metrics: metrics.clone(),
        };
        let (tls, limits, service) = (tls.clone(), Arc::clone(&limits), service.clone());
        let mut drain = drain.clone();
        connections.spawn(async move {
            let drain = async { drop(drain.wait_for(|it| *it).await) };
            connection.serve(tls, service, &limits, drain).await;
        });
    }
    drop(listener);
    let _ = begin_drain.send(true);
    while connections.join_next().await.is_some() {}
}

async fn accepted_or_pause(
    accepted: io::Result<(TcpStream, SocketAddr)>,
) -> Option<(TcpStream, SocketAddr)> {
    match accepted {
        Ok((stream, address)) => {
            // Answers are small, and somebody waits for each.
            let _ = stream.set_nodelay(true);
            Some((stream, address))
        }
        Err(error) if is_of_the_client(&error) => None,
        Err(error) => {
            tracing::warn!("cannot accept connections: {error}");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

/// Whether a connection failed only because its client is gone again.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// How many connections there may be.
struct Room {
    regular: Arc<Semaphore>,
    surplus: Arc<Semaphore>,
    guests: Guests,
    is_full: bool,
}

/// The place of one connection, until it is dropped.
struct Place {
    permit: OwnedSemaphorePermit,
    /// Where it may become a regular one, if it is a surplus one.
    promised: Option<Arc<Semaphore>>,
    is_surplus: bool,
    listed: Listed,
}

impl Room {
    fn new(connections: usize) -> Self {
        Room {
            regular: Arc::new(Semaphore::new(connections)),
            surplus: Arc::new(Semaphore::new(SURPLUS)),
            guests: Guests::default(),
            is_full: false,
        }
    }

    fn place(&mut self) -> Option<Place> {
        let regular = Arc::clone(&self.regular).try_acquire_owned();
        let is_surplus = regular.is_err();
        if is_surplus && !self.is_full {
            tracing::warn!("there are too many connections: more are turned away");
        }
        self.is_full = is_surplus;
        let permit = regular.or_else(|_| Arc::clone(&self.surplus).try_acquire_owned());
        let permit = permit.ok()?;
        let has_room = is_surplus && self.guests.make_room();
        Some(Place {
            permit,
            promised: has_room.then(|| Arc::clone(&self.regular)),
            is_surplus,
            listed: self.guests.add(),
        })
    }
}

impl Place {
    /// Waits for the connection that was told to go, and takes its place.
    async fn settle(&mut self) {
        let Some(regular) = self.promised.take() else {
            return;
        };
        if let Ok(Ok(permit)) = timeout(MOVING, regular.acquire_owned()).await {
            self.permit = permit;
            self.is_surplus = false;
        }
    }
}

/// A connection that was just accepted.
struct Accepted {
    stream: TcpStream,
    address: SocketAddr,
    place: Place,
    metrics: ConnectionMetrics,
}

impl Accepted {
    async fn serve(
        mut self,
        tls: Option<Tls>,
        service: impl Serve,
        limits: &ConnectionLimits,
        drain: impl Future<Output = ()>,
    ) {
        let metrics = self.metrics.clone();
        metrics.open.inc();
        self.place.settle().await;
        if self.place.is_surplus {
            metrics.too_many.inc();
        }
        let guest = Arc::clone(&self.place.listed.guest);
        tokio::select! {
            () = self.serve_until_told(tls, service, limits, drain) => {}
            () = guest.has_to_go() => metrics.too_many.inc(),
        }
        metrics.open.dec();
    }

    async fn serve_until_told(
        self,
        tls: Option<Tls>,
        service: impl Serve,
        limits: &ConnectionLimits,
        drain: impl Future<Output = ()>,
    ) {
        let place = self.place;
        let peer = |subject| {
            let guest = Arc::clone(&place.listed.guest);
            Peer::new(self.address, subject, place.is_surplus, guest)
        };
        let Some(tls) = tls else {
            return serve(self.stream, peer(None), service, limits, drain).await;
        };
        let agreed = timeout(HANDSHAKE_PATIENCE, tls.accept(self.stream)).await;
        match agreed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok((stream, subject)) => serve(stream, peer(subject), service, limits, drain).await,
            Err(error) => {
                self.metrics.no_tls.inc();
                // Anybody can make us say this, as often as they like.
                tracing::debug!(peer = %self.address, "no TLS: {error}");
            }
        }
    }
}
