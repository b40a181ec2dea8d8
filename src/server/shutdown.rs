//! Shutdown: lets accepted calls and batches finish.

use std::{future::Future, pin::pin};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::ServeError;
use crate::{config::Config, db::Database, rpc::health::Health};

/// Requests to stop the service. The first one begins the drain, the second one ends it.
#[derive(Debug)]
pub struct Stop(mpsc::Receiver<&'static str>);

impl Stop {
    /// Returns a sender of requests, each with the name of its origin. Dropping the sender is the
    /// first request.
    #[must_use]
    pub fn channel() -> (mpsc::Sender<&'static str>, Self) {
        let (sender, receiver) = mpsc::channel(2);
        (sender, Stop(receiver))
    }

    /// Returns the requests by SIGTERM and SIGINT. From then on SIGHUP no
    /// longer ends the process.
    pub(super) fn by_signals() -> Result<Self, ServeError> {
        let listen = |kind| signal(kind).map_err(ServeError::Signals);
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hangup = listen(SignalKind::hangup())?;
        let (sender, stop) = Stop::channel();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                    _ = hangup.recv() => {
                        // The watches of the files listen to it, too.
                        tracing::info!("SIGHUP: reading the TLS files; other settings need a restart");
                        continue;
                    }
                };
                if sender.send(name).await.is_err() {
                    return;
                }
            }
        });
        Ok(stop)
    }

    /// Waits for the first request.
    pub(super) async fn requested(&mut self) {
        if let Some(origin) = self.0.recv().await {
            tracing::info!(origin, "shutdown requested");
        }
    }

    /// Waits for the second request.
    async fn repeated(&mut self) {
        match self.0.recv().await {
            Some(origin) => {
                tracing::warn!(
                    origin,
                    "shutdown: calls aborted, a second request ends the drain"
                );
            }
            None => std::future::pending().await,
        }
    }
}

/// Shuts the service down in two phases, and returns when `server` has ended, the drain timed out, or
/// a second request to stop has ended it.
///
/// First health reports NOT_SERVING while calls are still served, so that load balancers notice.
/// Then no connection is accepted, and calls in progress may finish, as may batches whose callers
/// have disconnected.
pub(super) async fn drain(
    config: &Config,
    health: &Health,
    database: &Database,
    begin_drain: oneshot::Sender<()>,
    server: impl Future<Output = ()>,
    mut stop: Stop,
) {
    let drain = async {
        let mut server = pin!(server);
        tracing::info!("shutdown: NOT_SERVING");
        health.set(false);
        tokio::select! {
            () = sleep(config.drain_pause) => {}
            () = &mut server => {}
        }
        tracing::info!("shutdown: draining, no new connections");
        // Ends all Watch calls, which would never finish by themselves.
        health.clear();
        drop(begin_drain);
        let ending = async {
            server.await;
            database.wait_idle().await;
        };
        if timeout(config.drain_timeout, ending).await.is_err() {
            let seconds = config.drain_timeout.as_secs();
            tracing::warn!(seconds, "shutdown: calls aborted, the drain timed out");
        }
    };
    tokio::select! {
        () = drain => {}
        () = stop.repeated() => {}
    }
}
