//! Connection poolers between here and PostgreSQL.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How often it is tried: another client of the pooler may get in between.
const ATTEMPTS: usize = 3;

/// How long it may take; it is about being told early, not about being sure.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether a pooler gives a backend of PostgreSQL to one connection while another one
/// that it was given to before is still there: PgBouncer in the modes `transaction` and
/// `statement`. Sessions lose their prepared statements and settings there, and would
/// fail oddly later.
///
/// It asks for nothing that such a pooler can't do. Where that fails it answers no: who
/// can't connect is told so elsewhere.
pub async fn shares_sessions(url: &str) -> bool {
    timeout(PATIENCE, async {
        for _ in 0..ATTEMPTS {
            if have_one_backend(url).await == Some(true) {
                return true;
            }
        }
        false
    })
    .await
    .unwrap_or(false)
}

async fn have_one_backend(url: &str) -> Option<bool> {
    let one = connect(url).await?;
    let other = connect(url).await?;
    // A pooler that shares gives out the one first that was given back last.
    Some(backend(&one).await? == backend(&other).await?)
}

async fn connect(url: &str) -> Option<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
    // It ends with its client.
    tokio::spawn(connection);
    Some(client)
}

async fn backend(client: &Client) -> Option<String> {
    let rows = client.simple_query("SELECT pg_backend_pid()").await.ok()?;
    rows.iter().find_map(|row| match row {
        SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
        _ => None,
    })
}
