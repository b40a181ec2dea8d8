//! Runs the private PostgreSQL for as long as the service runs.

use std::time::Duration;

use tokio::time::Instant;

use super::{Listeners, ServeError, Stop, TlsState, run};
use crate::{
    config::Config,
    embedded::{Embedded, EmbeddedError, Settings},
    ops::metrics::Metrics,
    util::error_chain::error_chain,
};

/// The pause before a failed start of PostgreSQL is repeated. It is short, because callers wait for
/// the end of the outage.
const PAUSE: Duration = Duration::from_secs(1);

/// The interval of log lines about starts that keep failing. Each shows the end of PostgreSQL's log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Starts the private PostgreSQL, serves it until a stop is requested, and stops it.
pub(super) async fn serve_embedded(
    config: &Config,
    tls: &TlsState,
    metrics: &Metrics,
    settings: Settings,
    listeners: Listeners,
    mut stop: Stop,
) -> Result<(), ServeError> {
    let mut embedded = tokio::select! {
        embedded = start(&settings) => embedded?,
        // A start that is dropped halfway leaves no process behind.
        () = stop.requested() => return Ok(()),
    };
    embedded.log_newer_version();
    let address = embedded.database_url().parse()?;
    let result = tokio::select! {
        result = run(config, tls, metrics, &address, true, listeners, stop) => result,
        error = restart_on_crash(&mut embedded) => Err(error.into()),
    };
    let stopped = embedded.stop().await.map_err(ServeError::from);
    result.and(stopped)
}

/// Starts the private PostgreSQL, once its disk has space.
async fn start(settings: &Settings) -> Result<Embedded, EmbeddedError> {
    let mut failures = Failures::default();
    loop {
        match Embedded::start(settings.clone()).await {
            Err(error) if error.is_disk_full() => failures.log(&error),
            outcome => return outcome,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Restarts the private PostgreSQL after each crash. Returns only an error that no further attempt
/// can change.
async fn restart_on_crash(embedded: &mut Embedded) -> EmbeddedError {
    loop {
        let crash = embedded.crashed().await;
        if !crash.is_temporary() {
            return crash;
        }
        tracing::error!(
            cause = error_chain(&crash),
            "PostgreSQL crashed, restarting it"
        );
        let mut failures = Failures::default();
        while let Err(error) = embedded.restart().await {
            if !error.is_temporary() {
                return error;
            }
            failures.log(&error);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Logs failures that repeat every second.
#[derive(Default)]
struct Failures {
    logged_at: Option<Instant>,
}

impl Failures {
    fn log(&mut self, error: &EmbeddedError) {
        if self.logged_at.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return;
        }
        self.logged_at = Some(Instant::now());
        let cause = error_chain(error);
        let retry_in_s = PAUSE.as_secs();
        match error.is_disk_full() {
            true => tracing::error!(
                cause,
                retry_in_s,
                "PostgreSQL does not start: the disk of the data directory is full"
            ),
            false => tracing::error!(cause, retry_in_s, "PostgreSQL does not start"),
        }
    }
}
