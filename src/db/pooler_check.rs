//! Detects connection poolers that share sessions.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{SimpleQueryMessage, config::TargetSessionAttrs};

use super::{
    address::DatabaseAddress,
    connect::{Opened, open},
};

/// How many times to check, because other clients of the pooler may interfere.
const ATTEMPTS: usize = 3;

/// The timeout of the check, which is a courtesy and need not be certain.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Returns whether a pooler shares a backend of PostgreSQL between open connections, as PgBouncer does
/// in the modes `transaction` and `statement`. Sessions would lose their prepared statements
/// and settings there, and fail with obscure errors.
///
/// Returns false if the check itself fails. Connection errors are reported elsewhere.
pub async fn shares_sessions(address: &DatabaseAddress) -> bool {
    timeout(TIMEOUT, async {
        for _ in 0..ATTEMPTS {
            if have_one_backend(address).await == Some(true) {
                return true;
            }
        }
        false
    })
    .await
    .unwrap_or(false)
}

async fn have_one_backend(address: &DatabaseAddress) -> Option<bool> {
    let one = connect(address).await?;
    let other = connect(address).await?;
    // A pooler hands out the most recently returned backend first.
    Some(backend(&one).await? == backend(&other).await?)
}

async fn connect(address: &DatabaseAddress) -> Option<Opened> {
    open(address, TargetSessionAttrs::Any).await.ok()
}

async fn backend(opened: &Opened) -> Option<String> {
    let rows = opened.client.simple_query("SELECT pg_backend_pid()");
    let rows = rows.await.ok()?;
    rows.iter().find_map(|row| match row {
        SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
        _ => None,
    })
}
