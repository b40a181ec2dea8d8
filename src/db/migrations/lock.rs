//! The advisory lock of a process that migrates.

use std::time::Duration;

use diesel::{
    OptionalExtension, QueryResult, QueryableByName,
    sql_types::{BigInt, Bool, Integer},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::time::sleep;

use super::progress::Reporter;
use crate::{db::planner::raw_statement, util::backoff::jittered};

/// The advisory lock of a process that migrates or adopts a restored journal, so that replicas that
/// start at once take turns. The number is arbitrary.
const LOCK: i64 = 0x6272_6964_6765_626b;

/// The longest pause between two attempts to get the lock.
const POLL: Duration = Duration::from_millis(500);

raw_statement! {
/// Acquires the lock, unless another session holds it.
const TRY_LOCK(BigInt) = "SELECT pg_try_advisory_lock($1) AS is_held";
}

raw_statement! {
/// Selects the session that holds the lock. PostgreSQL shows the number in two halves.
const HOLDER(BigInt) = "
    SELECT pid FROM pg_locks
     WHERE locktype = 'advisory' AND granted AND objsubid = 1
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND classid::bigint = $1 >> 32 AND objid::bigint = $1 & 4294967295";
}

/// Waits for the lock. PostgreSQL releases it when the connection closes.
///
/// It polls, because a session that waits in `pg_advisory_lock` holds a snapshot. CREATE INDEX CONCURRENTLY
/// of the lock's holder waits for all older snapshots. That is a deadlock.
pub(crate) async fn acquire(connection: &mut AsyncPgConnection) -> QueryResult<()> {
    #[derive(QueryableByName)]
    struct Attempt {
        #[diesel(sql_type = Bool)]
        is_held: bool,
    }
    let mut reporter = Reporter::new("another process migrates");
    loop {
        let attempt = diesel::sql_query(TRY_LOCK).bind::<BigInt, _>(LOCK);
        let attempt: Attempt = attempt.get_result(connection).await?;
        if attempt.is_held {
            return Ok(());
        }
        if reporter.is_due()
            && let Some(holder) = holder(connection).await?
        {
            reporter.report_on(connection, holder).await?;
        }
        sleep(jittered(POLL)).await;
    }
}

/// Returns the process id of the session that holds the lock.
async fn holder(connection: &mut AsyncPgConnection) -> QueryResult<Option<i32>> {
    #[derive(QueryableByName)]
    struct Holder {
        #[diesel(sql_type = Integer)]
        pid: i32,
    }
    let holder = diesel::sql_query(HOLDER).bind::<BigInt, _>(LOCK);
    let holder: Option<Holder> = holder.get_result(connection).await.optional()?;
    Ok(holder.map(|holder| holder.pid))
}
