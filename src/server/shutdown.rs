//! Shutdown: lets accepted calls and batches finish.

use std::{pin::Pin, time::Duration};

use futures_util::future::FusedFuture;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::ServeError;
use crate::{
    config::Config,
    db::Database,
    rpc::{call::Cutoff, health::Health},
};

/// Requests to stop the service. The first one begins the drain, the second one ends it. The third
/// one does not wait for the responses of calls that the second one ended.
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

    /// Waits for a further request.
    async fn repeated(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(origin) => origin,
            None => std::future::pending().await,
        }
    }
}

/// How long the connections may take to send the responses of the calls that a shutdown ends.
const CUTOFF_TIMEOUT: Duration = Duration::from_secs(1);

/// A service that shuts down.
pub(super) struct Draining<'a> {
    pub(super) config: &'a Config,
    pub(super) health: &'a Health,
    pub(super) database: &'a Database,
    /// Begins the drain when it is dropped.
    pub(super) begin_drain: oneshot::Sender<()>,
    pub(super) cutoff: Cutoff,
}

impl Draining<'_> {
    /// Shuts the service down in two phases. Returns when `server` has ended.
    ///
    /// First health reports NOT_SERVING while calls are still served, so that load balancers notice.
    /// Then no connection is accepted, and calls in progress may finish, as may batches whose callers
    /// have disconnected. Calls that are still in progress when the drain times out, or when a second
    /// request to stop ends it, fail with SHUTTING_DOWN.
    pub(super) async fn drain(
        self,
        mut server: Pin<&mut impl FusedFuture<Output = ()>>,
        mut stop: Stop,
    ) {
        let (health, cutoff) = (self.health, self.cutoff.clone());
        tokio::select! {
            is_complete = self.wait_for_calls(server.as_mut()) => if is_complete { return },
            origin = stop.repeated() => {
                tracing::warn!(origin, "shutdown: a second request ends the drain");
            }
        }
        health.clear();
        cutoff.cut_off();
        if !server.is_terminated() {
            tokio::select! {
                _ = timeout(CUTOFF_TIMEOUT, server) => {}
                _ = stop.repeated() => {}
            }
        }
        tracing::warn!(calls = cutoff.calls(), "shutdown: calls aborted");
    }

    /// Runs both phases. Returns whether all calls and batches have finished in time.
    async fn wait_for_calls(self, mut server: Pin<&mut impl FusedFuture<Output = ()>>) -> bool {
        tracing::info!("shutdown: NOT_SERVING");
        self.health.set(false);
        // The server accepts connections only while it is polled.
        tokio::select! {
            () = sleep(self.config.drain_pause) => {}
            () = server.as_mut() => {}
        }
        tracing::info!("shutdown: draining, no new connections");
        // Ends all Watch calls, which would never finish by themselves.
        self.health.clear();
        drop(self.begin_drain);
        let ending = async {
            if !server.is_terminated() {
                server.as_mut().await;
            }
            self.database.wait_idle().await;
        };
        let is_complete = timeout(self.config.drain_timeout, ending).await.is_ok();
        if !is_complete {
            let seconds = self.config.drain_timeout.as_secs();
            tracing::warn!(seconds, "shutdown: the drain timed out");
        }
        is_complete
    }
}
