//! The cluster that the positions of the journal belong to, and their repair after a restore.
//!
//! A position is (xid, seq), and a reader follows the journal up to the oldest transaction in
//! progress (migration 008). A dump takes the transaction ids along. In another cluster they
//! start anew: restored rows lie beyond every transaction in progress, so a reader waits for
//! them, and new rows get lower positions than restored ones.
//!
//! The table `journal_cluster` has the identifier of the cluster that assigned the ids. It is
//! part of the dump, too. If it differs at the start and rows have ids that this cluster has
//! not assigned yet, the service sets the ids of all rows to 0 before it serves. Then
//! `seq` alone orders the restored rows, and every new row comes after them.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName, query_builder::SqlQuery,
    result::Error as DieselError, sql_types::BigInt,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{
    DatabaseAddress,
    connect::connect_to_any,
    migrations::{self, MigrationError},
    planner::raw_statement,
    schema::journal_cluster,
    unlimited::connect_without_timeouts,
};

/// The pages of the journal that a statement repairs: 8 MiB, some ten thousand rows, so that
/// an interrupted repair loses a second of work.
const PAGES_AT_A_TIME: i64 = 1024;

/// Stands for a cluster whose identifier the service's role may not read. The journal is then
/// checked at every start.
const UNKNOWN: i64 = 0;

raw_statement! {
/// Returns 1 if the role may read the identifier of the cluster, else 0.
const MAY_IDENTIFY() = "
    SELECT coalesce(has_function_privilege(to_regprocedure('pg_control_system()'), 'EXECUTE'),
                    false)::int::bigint AS number";
}

raw_statement! {
/// Selects the identifier of the cluster.
const IDENTIFIER() = "SELECT system_identifier AS number FROM pg_control_system()";
}

raw_statement! {
/// Returns 1 if a row has a transaction id that this cluster has not assigned yet, else 0.
const FOREIGN_IDS() = "
    SELECT count(*) AS number
      FROM (SELECT FROM fsm_transitions
             WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()) LIMIT 1) one";
}

raw_statement! {
/// Counts the pages of the journal.
const PAGES() = "
    SELECT pg_relation_size('fsm_transitions') / current_setting('block_size')::bigint AS number";
}

raw_statement! {
/// Sets the transaction ids of the rows of some pages to 0.
const REPAIR_PAGES(BigInt, BigInt) = "
    UPDATE fsm_transitions SET xid = '0'
     WHERE ctid >= ('(' || $1::bigint || ',0)')::tid
       AND ctid < ('(' || $2::bigint || ',0)')::tid AND xid <> '0'";
}

/// The row of the table.
type Recorded = Option<(i64, bool)>;

/// Makes the positions of the journal valid in this cluster. Returns how many rows it changed.
///
/// If the table names this cluster, one row is read and nothing is done. Otherwise
/// the journal is checked, and repaired if necessary. Replicas take turns, and an interrupted
/// repair continues at the next start.
///
/// # Errors
/// [`MigrationError::Connect`] and [`MigrationError::Statement`].
pub async fn adopt(address: &DatabaseAddress) -> Result<usize, MigrationError> {
    // Reading works on a standby, too.
    let mut connection = connect_to_any(address).await?;
    let cluster = identifier(&mut connection).await?;
    if is_adopted(recorded(&mut connection).await?, cluster) {
        return Ok(0);
    }
    let mut connection = connect_without_timeouts(address).await?;
    migrations::acquire_lock(&mut connection).await?;
    let recorded = recorded(&mut connection).await?;
    if is_adopted(recorded, cluster) {
        return Ok(0);
    }
    // The cluster may differ from that of the interrupted repair: a dump takes the row along.
    let is_interrupted = matches!(recorded, Some((_, false)));
    let mut rows = 0;
    if is_interrupted || has_foreign_ids(&mut connection).await? {
        record(&mut connection, cluster, false).await?;
        tracing::warn!("the journal comes from another cluster: repairing its positions");
        rows = repair(&mut connection).await?;
        tracing::warn!(rows, "positions of the journal repaired");
    }
    record(&mut connection, cluster, true).await?;
    Ok(rows)
}

fn is_adopted(recorded: Recorded, cluster: i64) -> bool {
    cluster != UNKNOWN && recorded == Some((cluster, true))
}

/// Returns the identifier of the cluster, or [`UNKNOWN`].
async fn identifier(connection: &mut AsyncPgConnection) -> Result<i64, MigrationError> {
    match number(connection, diesel::sql_query(MAY_IDENTIFY)).await? {
        0 => Ok(UNKNOWN),
        _ => Ok(number(connection, diesel::sql_query(IDENTIFIER)).await?),
    }
}

async fn recorded(connection: &mut AsyncPgConnection) -> Result<Recorded, DieselError> {
    journal_cluster::table
        .select((
            journal_cluster::system_identifier,
            journal_cluster::is_adopted,
        ))
        .first(connection)
        .await
        .optional()
}

async fn record(
    connection: &mut AsyncPgConnection,
    cluster: i64,
    is_adopted: bool,
) -> Result<(), DieselError> {
    let values = (
        journal_cluster::system_identifier.eq(cluster),
        journal_cluster::is_adopted.eq(is_adopted),
        journal_cluster::updated_at.eq(diesel::dsl::now),
    );
    diesel::insert_into(journal_cluster::table)
        .values(values)
        .on_conflict(journal_cluster::is_only_row)
        .do_update()
        .set(values)
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns whether a row has a transaction id that this cluster has not assigned yet. Reads the
/// whole journal.
async fn has_foreign_ids(connection: &mut AsyncPgConnection) -> Result<bool, DieselError> {
    Ok(number(connection, diesel::sql_query(FOREIGN_IDS)).await? > 0)
}

/// Sets the transaction ids of all rows to 0, page by page. Rows that others add meanwhile, on
/// later pages, are not changed.
async fn repair(connection: &mut AsyncPgConnection) -> Result<usize, DieselError> {
    let pages = number(connection, diesel::sql_query(PAGES)).await?;
    let mut rows = 0;
    let mut page = 0;
    while page < pages {
        let next = pages.min(page + PAGES_AT_A_TIME);
        rows += diesel::sql_query(REPAIR_PAGES)
            .bind::<BigInt, _>(page)
            .bind::<BigInt, _>(next)
            .execute(connection)
            .await?;
        page = next;
    }
    Ok(rows)
}

async fn number(connection: &mut AsyncPgConnection, query: SqlQuery) -> Result<i64, DieselError> {
    #[derive(QueryableByName)]
    struct Number {
        #[diesel(sql_type = BigInt)]
        number: i64,
    }
    let row: Number = query.get_result(connection).await?;
    Ok(row.number)
}
