//! Serving a private PostgreSQL, which lives and ends with the service.

use std::future::Future;

use tokio::net::TcpListener;

use super::{ServeError, TlsState, run};
use crate::{
    config::Config,
    embedded::{self, Embedded},
    ops::metrics::Metrics,
    util::error_chain::error_chain,
};

/// Serves a private PostgreSQL, from its start to its stop.
pub(super) async fn serve_embedded(
    config: &Config,
    tls: &TlsState,
    metrics: &Metrics,
    settings: embedded::Settings,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    tokio::pin!(stop);
    let embedded = tokio::select! {
        embedded = Embedded::start(settings.clone()) => embedded?,
        // Dropped in the middle, the start leaves nothing behind that runs.
        () = &mut stop => return Ok(()),
    };
    let url = embedded.database_url();
    let mut embedded = Some(embedded);
    let result = tokio::select! {
        result = run(config, tls, metrics, &url, true, listener, stop) => result,
        error = keep_running(&mut embedded, &settings) => Err(error.into()),
    };
    let stopped = match embedded {
        Some(embedded) => embedded.stop().await.map_err(ServeError::from),
        None => Ok(()),
    };
    result.and(stopped)
}

/// Starts the private PostgreSQL again whenever it crashes, until that fails.
async fn keep_running(
    embedded: &mut Option<Embedded>,
    settings: &embedded::Settings,
) -> embedded::EmbeddedError {
    loop {
        if let Some(running) = embedded {
            let crash = running.crashed().await;
            tracing::error!("{}; starting it again", error_chain(&crash));
        }
        // What is left of it goes first, with the lock on the data directory.
        *embedded = None;
        match Embedded::start(settings.clone()).await {
            Ok(running) => *embedded = Some(running),
            Err(error) => return error,
        }
    }
}
