//! The cluster that the positions of the journal belong to, and the adoption of a restored journal.
//!
//! A position is (xid, seq), and xid is the id of the transaction that wrote the row. A reader follows
//! the journal up to the oldest transaction in progress (migration 008). A dump takes the rows along
//! as they are, but in another cluster the transaction ids start anew. Restored rows would lie
//! beyond every transaction in progress, and new rows would get lower positions than restored ones.
//!
//! So the start adopts such a journal before the service serves. The default of
//! `fsm_transitions.xid` then adds an offset to the transaction id, so that each new row comes after
//! all that are there. No row changes, so the positions that readers have stored stay valid. A
//! reader adds the offset to the oldest transaction in progress.
//!
//! The table `journal_cluster` has the identifier of the cluster, and the offset for readers. Both it
//! and the default are part of a dump. If the identifier differs at the start, the service compares
//! the highest xid with the ids that this cluster has assigned.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName,
    query_builder::SqlQuery,
    result::Error as DieselError,
    sql_types::{BigInt, Bool, Text},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    DatabaseAddress,
    connect::connect_to_any,
    migrations::{self, MigrationError},
    planner::{byte_order, lateral, raw_statement},
    schema::journal_cluster,
    unlimited::connect_without_timeouts,
};

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
/// Returns the offset that the default of `fsm_transitions.xid` adds, 0 if it adds none. A dump of
/// the rows alone, or a reverted migration, may leave another one in `journal_cluster`.
const OFFSET_IN_FORCE() = "
    SELECT coalesce((
        SELECT substring(pg_get_expr(adbin, adrelid) FROM '[+] ''?([0-9]+)')::bigint
          FROM pg_attrdef
         WHERE adrelid = 'fsm_transitions'::regclass
           AND adnum = (SELECT attnum FROM pg_attribute
                         WHERE attrelid = adrelid AND attname = 'xid')), 0) AS number";
}

raw_statement! {
/// Returns the offset in force, or the next one that puts new rows after all others if a row has an
/// id that this cluster has not assigned yet. The last removed row of each namespace counts, too,
/// because a reader may have come as far. Goes from one namespace to the next by the index.
const OFFSET_NEEDED(BigInt) = concat!("
    WITH RECURSIVE it AS (
        (SELECT namespace, xid FROM fsm_transitions
          ORDER BY ", byte_order!("namespace"), " DESC, xid DESC, seq DESC LIMIT 1)
         UNION ALL
        SELECT next.namespace, next.xid FROM it", lateral!("next", "
            SELECT namespace, xid FROM fsm_transitions t
             WHERE ", byte_order!("t.namespace"), " < it.namespace
             ORDER BY ", byte_order!("t.namespace"), " DESC, xid DESC, seq DESC LIMIT 1"), "
    ), highest AS (
        SELECT max(xid::text::bigint) AS xid
          FROM (SELECT xid FROM it UNION ALL SELECT xid FROM journal_floors) it
    )
    SELECT CASE WHEN xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint + $1
                THEN xid + 1 ELSE $1 END AS number
      FROM highest");
}

raw_statement! {
/// Selects the owner of the journal, and whether this role may alter it.
const OWNER() = "
    SELECT pg_get_userbyid(relowner)::text AS name, pg_has_role(relowner, 'USAGE') AS is_role
      FROM pg_class WHERE oid = 'fsm_transitions'::regclass";
}

/// Waits for all writers of the journal, whose rows then count. Later statements are planned again,
/// with the new default.
const LOCK: &str = "LOCK TABLE fsm_transitions IN ACCESS EXCLUSIVE MODE";

/// Returns the statement that sets the default of `fsm_transitions.xid`. ALTER TABLE has no parameters,
/// so the number is part of the text.
fn set_offset(offset: i64) -> String {
    format!(
        "ALTER TABLE fsm_transitions ALTER COLUMN xid
             SET DEFAULT (pg_current_xact_id()::text::bigint + {offset})::text::xid8"
    )
}

/// Gives new rows of the journal higher positions than all others, if they would get lower ones in
/// this cluster. Returns the new offset. Returns `None` if the one in force is high enough.
///
/// Only reads if the table names this cluster and the offset in force. Replicas take turns.
///
/// # Errors
/// [`MigrationError::NotOwner`], [`MigrationError::Connect`] and [`MigrationError::Statement`].
pub async fn adopt(address: &DatabaseAddress) -> Result<Option<i64>, MigrationError> {
    // Reading works on a standby, too.
    let mut connection = connect_to_any(address).await?;
    let cluster = identifier(&mut connection).await?;
    if is_adopted(&mut connection, cluster).await? {
        return Ok(None);
    }
    let mut connection = connect_without_timeouts(address).await?;
    migrations::acquire_lock(&mut connection).await?;
    if is_adopted(&mut connection, cluster).await? {
        return Ok(None);
    }
    let in_force = number(&mut connection, diesel::sql_query(OFFSET_IN_FORCE)).await?;
    if offset_needed(&mut connection, in_force).await? == in_force {
        record(&mut connection, cluster, in_force).await?;
        return Ok(None);
    }
    require_owner(&mut connection).await?;
    let transaction = connection.transaction(async |connection| {
        connection.batch_execute(LOCK).await?;
        let offset = offset_needed(connection, in_force).await?;
        connection.batch_execute(&set_offset(offset)).await?;
        record(connection, cluster, offset).await?;
        Ok::<_, DieselError>(offset)
    });
    let xid_offset = transaction.await?;
    tracing::info!(
        xid_offset,
        "adopted the journal of another cluster: its positions stay valid"
    );
    Ok(Some(xid_offset))
}

/// Returns the identifier of the cluster, or [`UNKNOWN`].
async fn identifier(connection: &mut AsyncPgConnection) -> Result<i64, DieselError> {
    match number(connection, diesel::sql_query(MAY_IDENTIFY)).await? {
        0 => Ok(UNKNOWN),
        _ => number(connection, diesel::sql_query(IDENTIFIER)).await,
    }
}

/// Returns whether the table names this cluster and the offset in force.
async fn is_adopted(connection: &mut AsyncPgConnection, cluster: i64) -> Result<bool, DieselError> {
    if cluster == UNKNOWN {
        return Ok(false);
    }
    let recorded: Option<(i64, bool, i64)> = journal_cluster::table
        .select((
            journal_cluster::system_identifier,
            journal_cluster::is_adopted,
            journal_cluster::xid_offset,
        ))
        .first(connection)
        .await
        .optional()?;
    let in_force = number(connection, diesel::sql_query(OFFSET_IN_FORCE)).await?;
    Ok(recorded == Some((cluster, true, in_force)))
}

async fn record(
    connection: &mut AsyncPgConnection,
    cluster: i64,
    xid_offset: i64,
) -> Result<(), DieselError> {
    let values = (
        journal_cluster::system_identifier.eq(cluster),
        journal_cluster::is_adopted.eq(true),
        journal_cluster::xid_offset.eq(xid_offset),
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

async fn offset_needed(
    connection: &mut AsyncPgConnection,
    in_force: i64,
) -> Result<i64, DieselError> {
    let needed = diesel::sql_query(OFFSET_NEEDED).bind::<BigInt, _>(in_force);
    let row: Number = needed.get_result(connection).await?;
    Ok(row.number)
}

/// Fails if the role may not alter the journal.
async fn require_owner(connection: &mut AsyncPgConnection) -> Result<(), MigrationError> {
    #[derive(QueryableByName)]
    struct Owner {
        #[diesel(sql_type = Text)]
        name: String,
        #[diesel(sql_type = Bool)]
        is_role: bool,
    }
    let owner: Owner = diesel::sql_query(OWNER).get_result(connection).await?;
    match owner.is_role {
        true => Ok(()),
        false => Err(MigrationError::NotOwner { owner: owner.name }),
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

async fn number(connection: &mut AsyncPgConnection, query: SqlQuery) -> Result<i64, DieselError> {
    let row: Number = query.get_result(connection).await?;
    Ok(row.number)
}
