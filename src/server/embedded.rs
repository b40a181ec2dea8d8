//! Runs the private PostgreSQL for as long as the service runs.

use std::future::Future;

use tokio::net::TcpListener;

use super::{ServeError, TlsState, run};
use crate::{
    config::Config,
    embedded::{self, Embedded},
    ops::metrics::Metrics,
    util::error_chain::error_chain,
};

/// Starts the private PostgreSQL, serves it until `stop` ends, and stops it.
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
        // A start that is dropped halfway leaves no process behind.
        () = &mut stop => return Ok(()),
    };
    let url = embedded.database_url();
    let mut embedded = Some(embedded);
    let result = tokio::select! {
        result = run(config, tls, metrics, &url, true, listener, stop) => result,
        error = restart_on_crash(&mut embedded, &settings) => Err(error.into()),
    };
    let stopped = match embedded {
        Some(embedded) => embedded.stop().await.map_err(ServeError::from),
        None => Ok(()),
    };
    result.and(stopped)
}

/// Restarts the private PostgreSQL after each crash. Returns when a restart fails.
async fn restart_on_crash(
    embedded: &mut Option<Embedded>,
    settings: &embedded::Settings,
) -> embedded::EmbeddedError {
    loop {
        if let Some(running) = embedded {
            let crash = running.crashed().await;
            tracing::error!(
                cause = error_chain(&crash),
                "PostgreSQL crashed, restarting it"
            );
        }
        // Drop what remains first: it holds the lock on the data directory.
        *embedded = None;
        match Embedded::start(settings.clone()).await {
            Ok(running) => *embedded = Some(running),
            Err(error) => return error,
        }
    }
}
