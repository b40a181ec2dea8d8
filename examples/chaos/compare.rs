//! Compares what was acknowledged with what is stored.

use std::{collections::HashMap, fmt};

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Text, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::{Result, ledger::Ledger};

/// What is not as it must be.
#[derive(Debug, Default)]
pub struct Verdict {
    findings: Vec<(Kind, &'static str, i64)>,
    refused: Vec<String>,
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Acknowledged, and not there.
    Lost,
    /// There, or counted, more than once.
    Duplicated,
    /// Not in the state in which it was left.
    WrongState,
    /// The journal does not tell what happened.
    Journal,
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Lost, "lost"),
    (Kind::Duplicated, "duplicated"),
    (Kind::WrongState, "wrong state"),
    (Kind::Journal, "journal and state disagree"),
];

impl Verdict {
    /// Whether everything is as it must be.
    pub fn is_good(&self) -> bool {
        self.refused.is_empty() && self.findings.iter().all(|(_, _, count)| *count == 0)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| wrong | |\n|---|--:|")?;
        for (kind, name) in KINDS {
            let counts = self.findings.iter().filter(|(it, _, _)| *it == kind);
            let count: i64 = counts.map(|(_, _, count)| count).sum();
            writeln!(f, "| {name} | {count} |")?;
        }
        writeln!(f, "| refused | {} |", self.refused.len())?;
        for (_, what, count) in self.findings.iter().filter(|(_, _, count)| *count > 0) {
            writeln!(f, "{what}: {count}")?;
        }
        for refused in &self.refused {
            writeln!(f, "refused: {refused}")?;
        }
        Ok(())
    }
}

/// Looks at everything.
pub async fn compare(url: &str, ledger: &Ledger) -> Result<Verdict> {
    let mut database = bridgebook::db::connect(url).await?;
    let mut verdict = Verdict {
        refused: ledger.refused.clone(),
        ..Verdict::default()
    };
    rows(&mut database, ledger, &mut verdict).await?;
    states(&mut database, ledger, &mut verdict).await?;
    for (kind, what, sql) in ALWAYS {
        let count = count(diesel::sql_query(*sql), &mut database).await?;
        verdict.findings.push((*kind, what, count));
    }
    Ok(verdict)
}

/// Rows that have to be there, and those that must not.
async fn rows(
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
            "rows of the journal",
            "SELECT count(*) AS count FROM unnest($1) id
              WHERE NOT EXISTS (SELECT FROM fsm_transitions t WHERE t.id = id.id)",
            ledger.moves.clone(),
        ),
        (
            Kind::Lost,
            "batches of bridges",
            "SELECT count(*) AS count FROM unnest($1) id
              WHERE NOT EXISTS (SELECT FROM bridge_batches b WHERE b.batch_id = id.id)",
            batches,
        ),
        (
            Kind::WrongState,
            "workflows that were deleted and are there",
            "SELECT count(*) AS count FROM workflow_executions WHERE id = ANY($1)",
            ledger.deleted_workflows.clone(),
        ),
        (
            Kind::WrongState,
            "bridges that were deleted and are there",
            "SELECT count(*) AS count FROM bridge_states WHERE bridge_id = ANY($1)",
            ledger.deleted_bridges.clone(),
        ),
    ] {
        let query = diesel::sql_query(sql).bind::<Array<SqlUuid>, _>(ids);
        verdict
            .findings
            .push((kind, what, count(query, database).await?));
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
            "nodes that were deregistered and are there",
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
            "machines that were deleted and are there",
            "SELECT count(*) AS count FROM fsm_machines WHERE entity_type = ANY($1)",
            ledger.deleted_machines.clone(),
        ),
    ] {
        let query = diesel::sql_query(sql).bind::<Array<Text>, _>(names);
        verdict
            .findings
            .push((kind, what, count(query, database).await?));
    }
    Ok(())
}

/// Rows that have to be as they were left.
async fn states(
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
            "workflows that are not where they were left",
            "SELECT count(*) AS count FROM unnest($1, $2) expected (id, value)
               JOIN workflow_executions USING (id) WHERE current_state <> value",
            workflows.collect::<Vec<_>>(),
        ),
        (
            Kind::WrongState,
            "entities that are not where they were left",
            "SELECT count(*) AS count FROM unnest($1, $2) expected (id, value)
               LEFT JOIN fsm_entities ON entity_id = id WHERE current_state IS DISTINCT FROM value",
            ledger.entities.clone(),
        ),
        (
            Kind::WrongState,
            "bridges whose totals are not those that were set",
            "SELECT count(*) AS count FROM unnest($1, $2) expected (id, value)
               LEFT JOIN bridge_states ON bridge_id = id
              WHERE total_items_aggregated::TEXT IS DISTINCT FROM value",
            totals.collect(),
        ),
        (
            Kind::Duplicated,
            "bridges whose totals are not the sums of what was added",
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
        verdict
            .findings
            .push((kind, what, count(query, database).await?));
    }
    Ok(())
}

/// What may never be, whatever was asked for.
const ALWAYS: &[(Kind, &str, &str)] = &[
    (
        Kind::Duplicated,
        "workflows with another number of steps than were recorded",
        "SELECT count(*) AS count FROM
            (SELECT FROM workflow_steps GROUP BY workflow_id HAVING count(*) <> 3) it",
    ),
    (
        Kind::Duplicated,
        "moves that were made twice",
        "SELECT count(*) AS count FROM
            (SELECT FROM fsm_transitions WHERE entity_type IN ('valve', 'workflow')
              GROUP BY entity_id, to_state HAVING count(*) > 1) it",
    ),
    (
        Kind::Journal,
        "states that are not those of the last row of the journal",
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
        "rows of the journal that do not follow on each other",
        "SELECT count(*) AS count FROM
            (SELECT entity_type, from_state, lag(to_state) OVER moves AS before
               FROM fsm_transitions WINDOW moves AS (PARTITION BY entity_id ORDER BY seq)) it
          WHERE from_state IS DISTINCT FROM nullif(before, 'DELETED')",
    ),
    (
        Kind::Journal,
        "revisions that do not count the moves",
        "SELECT count(*) AS count FROM fsm_entities e WHERE revision <>
            (SELECT count(*) FROM fsm_transitions t WHERE t.entity_id = e.entity_id)",
    ),
    (
        Kind::Journal,
        "deletions that the journal does not end with",
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
