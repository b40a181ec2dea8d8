//! The end: nobody who was let in loses anything.

use std::{future::Future, pin::pin};

use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{config::Config, db::Database, rpc::health::Health};

/// Tells everybody that we are about to go, and serves for a while longer, until load
/// balancers have noticed; then takes no more connections, and lets calls under way
/// end, and batches whose callers are gone, for so long and no longer.
pub(super) async fn drain(
    config: &Config,
    health: &Health,
    database: &Database,
    begin_drain: oneshot::Sender<()>,
    server: impl Future<Output = ()>,
) {
    let mut server = pin!(server);
    tracing::info!("stopping: NOT_SERVING");
    health.set(false).await;
    tokio::select! {
        () = sleep(config.drain_pause) => {}
        () = &mut server => {}
    }
    tracing::info!("stopping: no new connections, letting the calls under way end");
    // Whoever watches has been told, and is let go: a watch would last for ever.
    health.clear().await;
    drop(begin_drain);
    let ending = async {
        server.await;
        database.wait_idle().await;
    };
    let patience = config.drain_timeout;
    if timeout(patience, ending).await.is_err() {
        tracing::warn!("some calls did not end within {} s", patience.as_secs());
    }
}
