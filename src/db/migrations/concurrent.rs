//! Runs a statement of a migration outside of a transaction: an index is built or dropped
//! CONCURRENTLY.

use std::time::Duration;

use diesel::{
    QueryResult, QueryableByName,
    result::Error as DieselError,
    sql_types::{Bool, Integer, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use tokio::time::sleep;

use super::{
    error::is_deadlock,
    list::{built_index, is_concurrent},
    progress::watch,
};
use crate::{
    db::{DatabaseAddress, planner::raw_statement},
    util::error_chain::error_chain,
};

/// Lets a statement wait for locks without limit. CONCURRENTLY takes SHARE UPDATE EXCLUSIVE, behind which
/// neither reads nor writes queue. It also waits for all older transactions, and a timeout there
/// would leave an invalid index and lose the work.
const NO_LOCK_TIMEOUT: &str = "SET lock_timeout = 0";

/// How many times a build is attempted. An ANALYZE of the table waits for the lock of the build, and the
/// end of the build waits for the snapshot of ANALYZE: a deadlock, for which PostgreSQL may end the build.
/// Autovacuum skips locked tables.
const ATTEMPTS: u32 = 3;

/// The pause before the next attempt, in which the other statement gets the lock.
const PAUSE: Duration = Duration::from_secs(1);

raw_statement! {
/// Selects whether an interrupted build has left an invalid index.
const IS_INVALID(Text) = "
    SELECT EXISTS (
        SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid) AS is_invalid";
}

raw_statement! {
/// Selects the process id of the session.
const PID() = "SELECT pg_backend_pid() AS pid";
}

/// Runs a statement. While it builds or drops an index, its progress is shown.
pub(super) async fn execute(
    connection: &mut AsyncPgConnection,
    address: &DatabaseAddress,
    statement: &str,
) -> QueryResult<()> {
    if !is_concurrent(statement) {
        return connection.batch_execute(statement).await;
    }
    connection.batch_execute(NO_LOCK_TIMEOUT).await?;
    let mut attempt = 1;
    loop {
        match execute_concurrent(connection, address, statement).await {
            Err(error) if attempt < ATTEMPTS && is_deadlock(&error) => {
                let cause = error_chain(&error);
                tracing::warn!(
                    cause,
                    attempt,
                    "a deadlock ended the statement, trying again"
                );
                sleep(PAUSE).await;
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

async fn execute_concurrent(
    connection: &mut AsyncPgConnection,
    address: &DatabaseAddress,
    statement: &str,
) -> QueryResult<()> {
    let pid = pid(connection).await?;
    if let Some(index) = built_index(statement)
        && is_invalid(connection, index).await?
    {
        tracing::warn!(index, "dropping the invalid index of an interrupted build");
        let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS \"{index}\"");
        watched(connection, address, "dropping an index", pid, &drop).await?;
    }
    let event = match built_index(statement) {
        Some(_) => "building an index",
        None => "dropping an index",
    };
    watched(connection, address, event, pid, statement).await?;
    match built_index(statement) {
        Some(index) if is_invalid(connection, index).await? => {
            let error =
                format!("another session builds the index {index}; wait for it, and try again");
            Err(DieselError::QueryBuilderError(error.into()))
        }
        _ => Ok(()),
    }
}

/// Runs a statement, and shows its progress.
async fn watched(
    connection: &mut AsyncPgConnection,
    address: &DatabaseAddress,
    event: &'static str,
    pid: i32,
    statement: &str,
) -> QueryResult<()> {
    tokio::select! {
        outcome = connection.batch_execute(statement) => outcome,
        never = watch(address, event, pid) => match never {},
    }
}

async fn pid(connection: &mut AsyncPgConnection) -> QueryResult<i32> {
    #[derive(QueryableByName)]
    struct Session {
        #[diesel(sql_type = Integer)]
        pid: i32,
    }
    let session: Session = diesel::sql_query(PID).get_result(connection).await?;
    Ok(session.pid)
}

async fn is_invalid(connection: &mut AsyncPgConnection, index: &str) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Index {
        #[diesel(sql_type = Bool)]
        is_invalid: bool,
    }
    let query = diesel::sql_query(IS_INVALID).bind::<Text, _>(index);
    let index: Index = query.get_result(connection).await?;
    Ok(index.is_invalid)
}
