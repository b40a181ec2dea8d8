//! Shutdown: lets accepted calls and batches finish.

use std::{future::Future, pin::pin};

use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{config::Config, db::Database, rpc::health::Health};

/// Shuts the service down in two phases, and returns when `server` has ended or the drain timed out.
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
) {
    let mut server = pin!(server);
    tracing::info!("shutdown: NOT_SERVING");
    health.set(false).await;
    tokio::select! {
        () = sleep(config.drain_pause) => {}
        () = &mut server => {}
    }
    tracing::info!("shutdown: draining, no new connections");
    // Ends all Watch calls, which would never finish by themselves.
    health.clear().await;
    drop(begin_drain);
    let ending = async {
        server.await;
        database.wait_idle().await;
    };
    if timeout(config.drain_timeout, ending).await.is_err() {
        let seconds = config.drain_timeout.as_secs();
        tracing::warn!(seconds, "shutdown: calls aborted, the drain timed out");
    }
}
