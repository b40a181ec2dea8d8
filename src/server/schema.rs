//! Prepares the schema at the start: waits for the database, migrates it, checks the role's rights.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ServeError;
use crate::{
    db::{
        DatabaseAddress, connect, grants, journal_cluster,
        migrations::{self, MigrationError},
        page_token_key, pooler_check,
    },
    domain::page_token_key::PageTokenKey,
    util::error_chain::error_chain,
};

/// The pause before the database is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The interval of log lines while the cause stays the same.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Waits for the database, then applies pending migrations or checks that there are none, and
/// adopts the journal after a restore. Returns the key of page tokens. Tries again while the
/// database is unreachable, and when a connection is lost meanwhile.
pub(super) async fn prepare(
    address: &DatabaseAddress,
    migrate: bool,
) -> Result<PageTokenKey, ServeError> {
    let mut logged: Option<(String, Instant)> = None;
    loop {
        let cause = match try_prepare(address, migrate).await {
            Err(ServeError::Schema(error)) if error.is_unavailable() => error_chain(&error),
            outcome => return outcome,
        };
        let is_logged = logged
            .as_ref()
            .is_some_and(|(earlier, at)| *earlier == cause && at.elapsed() < LOG_INTERVAL);
        if !is_logged {
            tracing::warn!(cause, "waiting for the database");
            logged = Some((cause, Instant::now()));
        }
        sleep(RETRY_PAUSE).await;
    }
}

async fn try_prepare(address: &DatabaseAddress, migrate: bool) -> Result<PageTokenKey, ServeError> {
    if pooler_check::shares_sessions(address).await {
        return Err(ServeError::SharedSessions);
    }
    let missing = grants::missing(address).await?;
    if !missing.is_empty() {
        return Err(ServeError::MissingGrants(missing));
    }
    if migrate {
        let applied = migrations::up(address).await?;
        if !applied.is_empty() {
            tracing::info!(versions = applied.join(", "), "migrations applied");
        }
    } else {
        let pending = migrations::pending(address).await?;
        if !pending.is_empty() {
            return Err(ServeError::SchemaBehind(pending));
        }
    }
    journal_cluster::adopt(address).await?;
    // Fails on a standby. The steps above only read if there is nothing to do, so they succeed there.
    drop(connect(address).await.map_err(MigrationError::from)?);
    Ok(page_token_key::load_or_create(address).await?)
}
