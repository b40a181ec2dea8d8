//! Compares the acknowledged writes with the stored rows.

use std::collections::HashMap;

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Text, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::{
    Result,
    ledger::Ledger,
    verdict::{Kind, Verdict},
};

/// Compares all tables with the ledger.
pub async fn compare(url: &str, ledger: &Ledger, verdict: &mut Verdict) -> Result<()> {
    let mut database = bridgebook::db::connect(&url.parse()?).await?;
    for refused in &ledger.refused {
        verdict.add(Kind::Refused, refused, 1);
    }
    compare_existence(&mut database, ledger, verdict).await?;
    compare_content(&mut database, ledger, verdict).await?;
    for (kind, what, sql) in INVARIANTS {
        let count = count(diesel::sql_query(*sql), &mut database).await?;
        verdict.add(*kind, *what, count);
    }
    Ok(())
}

/// Checks which rows exist.
async fn compare_existence(
    database: &mut AsyncPgConnection,
    ledger: &Ledger,
    verdict: &mut Verdict,
) -> Result<()> {
    let ids = |all: &[(Uuid, &str)]| all.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    let batches: Vec<_> = ledger.batches.iter().map(|(_, batch, _)| *batch).collect();
    for (kind, what, sql, ids) in [
        (
            Kind::Lost,
            "workflows",
            "SELECT count(*) AS count FROM unnest($1) id
              WHERE NOT EXISTS (SELECT FROM workflow_executions w WHERE w.id = id.id)",
            ids(&ledger.workflows),
        ),
        (
            Kind::Lost,
            "steps",
            "SELECT count(*) AS count FROM unnest($1) id
              WHERE NOT EXISTS (SELECT FROM workflow_steps s WHERE s.id = id.id)",
            ledger.steps.clone(),
        ),
        (
            Kind::Lost,
            "stamps",
            "SELECT count(*) AS count FROM unnest($1) id
              WHERE NOT EXISTS (SELECT FROM metadata_stamps s WHERE s.id = id.id)",
            ledger.stamps.clone(),
        ),
        (
            Kind::Lost,
            "journal rows",
            "SELECT count(*) AS count FROM unnest($1) id
              WHERE NOT EXISTS (SELECT FROM fsm_transitions t WHERE t.id = id.id)",
            ledger.moves.clone(),
        ),
        (
            Kind::Lost,
            "batches",
            "SELECT count(*) AS count FROM unnest($1) id
              WHERE NOT EXISTS (SELECT FROM bridge_batches b WHERE b.batch_id = id.id)",
            batches,
        ),
        (
            Kind::WrongState,
            "deleted workflows that exist",
            "SELECT count(*) AS count FROM workflow_executions WHERE id = ANY($1)",
            ledger.deleted_workflows.clone(),
        ),
        (
            Kind::WrongState,
            "deleted bridges that exist",
            "SELECT count(*) AS count FROM bridge_states WHERE bridge_id = ANY($1)",
            ledger.deleted_bridges.clone(),
        ),
    ] {
        let query = diesel::sql_query(sql).bind::<Array<SqlUuid>, _>(ids);
        verdict.add(kind, what, count(query, database).await?);
    }
    let machines = ledger.machines.iter();
    let machines: Vec<_> = machines
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    for (kind, what, sql, names) in [
        (
            Kind::Lost,
            "nodes",
            "SELECT count(*) AS count FROM unnest($1) id
              WHERE NOT EXISTS (SELECT FROM node_registrations n WHERE n.node_id = id.id)",
            ledger.nodes.clone(),
        ),
        (
            Kind::WrongState,
            "deregistered nodes that exist",
            "SELECT count(*) AS count FROM node_registrations WHERE node_id = ANY($1)",
            ledger.deleted_nodes.clone(),
        ),
        (
            Kind::Lost,
            "machines",
            "SELECT count(*) AS count FROM unnest($1) id
              WHERE id.id IS DISTINCT FROM
                    (SELECT entity_type || ' ' || max(version) FROM fsm_machines
                      WHERE entity_type = split_part(id.id, ' ', 1) GROUP BY entity_type)",
            machines,
        ),
        (
            Kind::WrongState,
            "deleted machines that exist",
            "SELECT count(*) AS count FROM fsm_machines WHERE entity_type = ANY($1)",
            ledger.deleted_machines.clone(),
        ),
    ] {
        let query = diesel::sql_query(sql).bind::<Array<Text>, _>(names);
        verdict.add(kind, what, count(query, database).await?);
    }
    Ok(())
}

/// Checks the content of rows.
async fn compare_content(
    database: &mut AsyncPgConnection,
    ledger: &Ledger,
    verdict: &mut Verdict,
) -> Result<()> {
    let workflows = ledger
        .workflows
        .iter()
        .map(|(id, state)| (*id, (*state).to_owned()));
    let totals = ledger
        .bridges
        .iter()
        .map(|(id, items)| (*id, items.to_string()));
    let mut sums: HashMap<Uuid, i64> = HashMap::new();
    for (bridge, _, items) in &ledger.batches {
        *sums.entry(*bridge).or_default() += items;
    }
    let sums = sums.into_iter().map(|(id, items)| (id, items.to_string()));
    for (kind, what, sql, expected) in [
        (
            Kind::WrongState,
            "workflows in another state than acknowledged",
            "SELECT count(*) AS count FROM unnest($1, $2) expected (id, value)
               JOIN workflow_executions USING (id) WHERE current_state <> value",
            workflows.collect::<Vec<_>>(),
        ),
        (
            Kind::WrongState,
            "entities in another state than acknowledged",
            "SELECT count(*) AS count FROM unnest($1, $2) expected (id, value)
               LEFT JOIN fsm_entities ON entity_id = id WHERE current_state IS DISTINCT FROM value",
            ledger.entities.clone(),
        ),
        (
            Kind::WrongState,
            "bridges with other totals than acknowledged",
            "SELECT count(*) AS count FROM unnest($1, $2) expected (id, value)
               LEFT JOIN bridge_states ON bridge_id = id
              WHERE total_items_aggregated::TEXT IS DISTINCT FROM value",
            totals.collect(),
        ),
        (
            Kind::Duplicated,
            "bridges whose totals differ from the sums of their batches",
            "SELECT count(*) AS count FROM unnest($1, $2) expected (id, value)
               LEFT JOIN bridge_states ON bridge_id = id
              WHERE total_items_aggregated::TEXT IS DISTINCT FROM value",
            sums.collect(),
        ),
    ] {
        let (ids, values): (Vec<_>, Vec<_>) = expected.into_iter().unzip();
        let query = diesel::sql_query(sql)
            .bind::<Array<SqlUuid>, _>(ids)
            .bind::<Array<Text>, _>(values);
        verdict.add(kind, what, count(query, database).await?);
    }
    Ok(())
}

/// Invariants that hold for any sequence of writes.
const INVARIANTS: &[(Kind, &str, &str)] = &[
    (
        Kind::Duplicated,
        "workflows with another number of steps than recorded",
        "SELECT count(*) AS count FROM
            (SELECT FROM workflow_steps GROUP BY workflow_id HAVING count(*) <> 3) it",
    ),
    (
        Kind::Duplicated,
        "moves that were applied twice",
        "SELECT count(*) AS count FROM
            (SELECT FROM fsm_transitions WHERE entity_type IN ('valve', 'workflow')
              GROUP BY entity_id, to_state HAVING count(*) > 1) it",
    ),
    (
        Kind::Journal,
        "states that differ from the last journal row",
        "SELECT count(*) AS count FROM
            (SELECT id, current_state FROM workflow_executions
              UNION ALL SELECT entity_id, current_state FROM fsm_entities
              UNION ALL SELECT bridge_id, current_fsm_state FROM bridge_states) it (id, state)
          WHERE state IS DISTINCT FROM
            (SELECT to_state FROM fsm_transitions t WHERE t.entity_id = it.id
              ORDER BY seq DESC LIMIT 1)",
    ),
    (
        Kind::Journal,
        "journal rows that do not continue the row before",
        "SELECT count(*) AS count FROM
            (SELECT entity_type, from_state, lag(to_state) OVER moves AS before
               FROM fsm_transitions WINDOW moves AS (PARTITION BY entity_id ORDER BY seq)) it
          WHERE from_state IS DISTINCT FROM nullif(before, 'DELETED')",
    ),
    (
        Kind::Journal,
        "revisions that differ from the number of moves",
        "SELECT count(*) AS count FROM fsm_entities e WHERE revision <>
            (SELECT count(*) FROM fsm_transitions t WHERE t.entity_id = e.entity_id)",
    ),
    (
        Kind::Journal,
        "workflows whose deletion and journal disagree",
        "SELECT count(*) AS count FROM
            (SELECT DISTINCT ON (entity_id) entity_id, to_state FROM fsm_transitions
              WHERE entity_type = 'workflow' ORDER BY entity_id, seq DESC) last
          WHERE (to_state = 'DELETED') = EXISTS
            (SELECT FROM workflow_executions w WHERE w.id = last.entity_id)",
    ),
];

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

async fn count<'q, Q>(query: Q, database: &mut AsyncPgConnection) -> Result<i64>
where
    Q: RunQueryDsl<AsyncPgConnection>
        + diesel_async::methods::LoadQuery<'q, AsyncPgConnection, Count>
        + 'q,
{
    let row: Count = query.get_result(database).await?;
    Ok(row.count)
}
