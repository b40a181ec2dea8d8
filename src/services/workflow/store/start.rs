//! Starting workflows.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult,
    sql_types::{Bool, Bytea, Jsonb, Nullable, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::{TryStreamExt, future::BoxFuture};

use super::{WorkflowSql, workflow_columns};
use crate::{
    db::{
        DbError,
        batch::{
            Answers, Operation,
            optimistic::{Outcomes, Undecided, retry_conflicts},
            reservation::{BATCH_BYTES, read_up_to},
            rounds::{Indexed, in_order, rounds},
            statement::{batch_statement, column},
        },
        journal::PositionSql,
        planner::{in_set, left_lookup, left_neighbour, row_exists, same_namespace},
    },
    domain::{
        digest::RequestDigest,
        error::{Error, Resource, Result},
        id::{CorrelationId, TokenId, TransitionId, WorkflowId},
        journal::START_EVENT,
        json::JsonObject,
        namespace::Scoped,
        position::Position,
        write_outcome::{Journaled, WriteOutcome, resolve_duplicate},
    },
    services::workflow::model::{ENTITY_TYPE, NewWorkflow, State, Workflow},
};

batch_statement! {
    /// Inserts the workflows whose ids are free, each with its first row of the journal. Returns
    /// their ids, the time of the insert, and the positions of those rows.
    struct InsertWorkflows<'a> {
        id: WorkflowId => Uuid,
        correlation_id: CorrelationId => Uuid,
        workflow_type: &'a str => Text,
        current_state: State => Text,
        namespace: &'a str => Text,
        started_at: Option<DateTime<Utc>> => Nullable<Timestamptz>,
        metadata: &'a JsonObject => Jsonb,
        request_digest: RequestDigest => Bytea,
        transition_id: TransitionId => Uuid,
        entity_type: &'a str => Text,
        transition_event: &'a str => Text,
        token_id: Option<TokenId> => Nullable<Uuid>,
    }
    returns (Uuid, Timestamptz, PositionSql);
    // Inserts in the order of the key, so that two replicas with the same keys wait for each
    // other instead of deadlocking.
    concat!(", inserted AS (
        INSERT INTO workflow_executions
            (id, correlation_id, workflow_type, current_state, namespace, started_at, metadata,
             request_digest)
        SELECT id, correlation_id, workflow_type, current_state, namespace,
               coalesce(started_at, now()), metadata, request_digest
          FROM item
         ORDER BY correlation_id
            ON CONFLICT DO NOTHING
        RETURNING id
    )
    INSERT INTO fsm_transitions
        (id, entity_id, entity_type, to_state, transition_event, namespace, token_id)
    SELECT item.transition_id, item.id, item.entity_type, item.current_state,
           item.transition_event, item.namespace, item.token_id
      FROM item
     WHERE ", in_set!("item.id", "SELECT id FROM inserted"), "
    RETURNING entity_id, created_at, id, xid, seq")
}

batch_statement! {
    /// Finds out why workflows were not inserted: whether the correlation_id or the id is taken
    /// (by any tenant), and the row with the correlation_id if the same request started it, with
    /// the id that the caller chose, if any. Rows of other requests are not read, so the work for
    /// a taken id does not depend on which tenant took it. Also reads the position of the workflow's
    /// first row of the journal, which has the same time.
    struct FindWorkflows<'a> {
        namespace: &'a str => Text,
        correlation_id: CorrelationId => Uuid,
        id: WorkflowId => Uuid,
        is_id_chosen: bool => Bool,
        request_digest: RequestDigest => Bytea,
        entity_type: &'a str => Text,
    }
    returns (Uuid, Bool, Nullable<WorkflowSql>, Nullable<PositionSql>);
    concat!(
        " SELECT item.correlation_id, ",
                 row_exists!("workflow_executions", "k", "k.correlation_id = item.correlation_id"), "
                     IS NOT NULL
                 OR ", row_exists!("workflow_executions", "k", "k.id = item.id"), " IS NOT NULL, ",
                 workflow_columns!(), ", first.id, first.xid, first.seq
            FROM item",
        left_lookup!("workflow_executions", "w",
            "w.correlation_id = item.correlation_id AND ", same_namespace!("w"), "
             AND w.request_digest = item.request_digest
             AND (NOT item.is_id_chosen OR w.id = item.id)"),
        left_neighbour!("first", "fsm_transitions",
            "w.id IS NOT NULL AND it.namespace = item.namespace",
            "(it.entity_type, it.entity_id, it.created_at)
                >= (item.entity_type, w.id, w.created_at)",
            "it.entity_type, it.entity_id, it.created_at, it.seq",
            "(it.entity_type, it.entity_id, it.created_at)
                = (item.entity_type, w.id, w.created_at) AND it.from_state IS NULL")
    )
}

/// A workflow, with the position of its first row of the journal.
type Started = WriteOutcome<Journaled<Workflow>>;

/// Starts workflows. Idempotent by correlation_id.
pub struct StartWorkflows;

impl Operation for StartWorkflows {
    const NAME: &'static str = "StartWorkflows";

    const READS_DOCUMENTS: bool = true;

    type Item = Scoped<NewWorkflow>;
    type Answer = Started;
    type Key = CorrelationId;

    fn key(item: &Self::Item) -> CorrelationId {
        item.correlation_id
    }

    fn tenant(item: &Self::Item) -> &str {
        item.namespace.as_str()
    }

    fn journal(item: &Self::Item) -> Option<&str> {
        Some(item.namespace.as_str())
    }

    fn document_bytes(item: &Self::Item) -> usize {
        item.metadata.wire_len()
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(items.len());
            let mut bytes = 0;
            for round in rounds(items, |item| [item.correlation_id.0, item.id.0]) {
                let (positions, round): (Vec<_>, Vec<_>) = round.into_iter().unzip();
                if bytes > BATCH_BYTES {
                    answers.extend(positions.into_iter().map(|position| (position, None)));
                    continue;
                }
                let round = retry_conflicts(connection, &round, |connection, items| {
                    Box::pin(attempt(connection, items))
                });
                let round = round.await?;
                let read = round.iter().flatten().flatten();
                bytes += read.map(Self::bytes_read).sum::<usize>();
                answers.extend(positions.into_iter().zip(round));
            }
            Ok(in_order(answers))
        })
    }

    fn bytes_read(outcome: &Self::Answer) -> usize {
        outcome.row.row.size()
    }

    /// A violated key of the journal means that an earlier try of this very call started the
    /// workflow, and that it has been deleted since.
    fn item_error(_item: &Self::Item, error: DbError) -> Error {
        match error.constraint() {
            Some("fsm_transitions_pkey") => Error::Contended,
            _ => error.into(),
        }
    }
}

/// Inserts what it can, and finds out why it could not insert the rest. A workflow whose ids
/// became free between the two statements is a write conflict. An item is unread
/// if the workflows that earlier tries started are too large to be read together.
async fn attempt(
    connection: &mut AsyncPgConnection,
    items: &[&Scoped<NewWorkflow>],
) -> Result<Outcomes<Started>, DbError> {
    let batch: Vec<Indexed<_>> = items.iter().copied().enumerate().collect();
    let inserted = insert(connection, &batch).await?;
    let inserted: HashMap<_, _> = inserted.into_iter().map(|row| (row.0, row)).collect();
    let is_open = |(_, new): &Indexed<Scoped<NewWorkflow>>| !inserted.contains_key(&new.id);
    let others: Vec<Indexed<_>> = batch.into_iter().filter(is_open).collect();
    let (mut found, is_complete) = find(connection, &others).await?;
    let outcomes = items.iter().map(|new| match inserted.get(&new.id) {
        Some((_, created_at, position)) => {
            let row = Journaled {
                row: stored(new, *created_at),
                position: Some(*position),
            };
            Ok(Ok(WriteOutcome { row, created: true }))
        }
        None => match found.remove(&new.correlation_id) {
            Some((true, same)) => Ok(resolve(new, same)),
            None if !is_complete => Err(Undecided::Unread),
            _ => Err(Undecided::Conflict),
        },
    });
    Ok(outcomes.collect())
}

async fn insert(
    connection: &mut AsyncPgConnection,
    round: &[Indexed<'_, Scoped<NewWorkflow>>],
) -> QueryResult<Vec<(WorkflowId, DateTime<Utc>, Position)>> {
    let statement = InsertWorkflows {
        id: column(round, |new| new.id),
        correlation_id: column(round, |new| new.correlation_id),
        workflow_type: column(round, |new| new.workflow_type.as_str()),
        current_state: column(round, |new| new.current_state),
        namespace: column(round, |new| new.namespace.as_str()),
        started_at: column(round, |new| new.started_at),
        metadata: column(round, |new| &new.metadata),
        request_digest: column(round, |new| new.request_digest),
        transition_id: column(round, |new| new.transition_id),
        entity_type: column(round, |_| ENTITY_TYPE),
        transition_event: column(round, |_| START_EVENT),
        token_id: column(round, |new| new.token_id),
    };
    statement.load(connection).await
}

/// Whether the ids are taken, and the workflow if the same request started it.
type FoundWorkflow = (bool, Option<Journaled<Workflow>>);

/// Finds the workflows with the ids of `others`, by correlation_id. Also returns whether these
/// are all; the remaining rows are left unread when they exceed [`BATCH_BYTES`].
async fn find(
    connection: &mut AsyncPgConnection,
    others: &[Indexed<'_, Scoped<NewWorkflow>>],
) -> QueryResult<(HashMap<CorrelationId, FoundWorkflow>, bool)> {
    if others.is_empty() {
        return Ok((HashMap::new(), true));
    }
    let find = FindWorkflows {
        namespace: column(others, |new| new.namespace.as_str()),
        correlation_id: column(others, |new| new.correlation_id),
        id: column(others, |new| new.id),
        is_id_chosen: column(others, |new| new.is_id_chosen),
        request_digest: column(others, |new| new.request_digest),
        entity_type: column(others, |_| ENTITY_TYPE),
    };
    type Row = (CorrelationId, bool, Option<Workflow>, Option<Position>);
    let rows = find.load_stream::<Row>(connection).await?;
    let size = |(_, (_, same)): &(_, FoundWorkflow)| same.as_ref().map_or(0, |it| it.row.size());
    let rows = rows.map_ok(|(id, is_taken, same, position)| {
        let same = same.map(|row| Journaled { row, position });
        (id, (is_taken, same))
    });
    let (rows, is_complete) = read_up_to(rows, size).await?;
    Ok((rows.into_iter().collect(), is_complete))
}

/// Resolves a start whose correlation_id or id is taken: by an earlier try of the same request,
/// or by another request of any tenant.
fn resolve(new: &Scoped<NewWorkflow>, same: Option<Journaled<Workflow>>) -> Result<Started> {
    // The service made the id for this very call, so an earlier try of it stored the row.
    let is_ours = same.as_ref().is_some_and(|it| it.row.id == new.id) && !new.is_id_chosen;
    resolve_duplicate(same, !is_ours, || Error::IdConflict {
        resource: Resource::Workflow,
        field: "correlation_id",
        name: new.correlation_id.to_string(),
    })
}

/// Returns the row of a workflow that the statement has stored.
fn stored(new: &Scoped<NewWorkflow>, created_at: DateTime<Utc>) -> Workflow {
    Workflow {
        id: new.id,
        correlation_id: new.correlation_id,
        workflow_type: new.workflow_type.clone(),
        current_state: new.current_state,
        namespace: new.namespace.to_string(),
        started_at: new.started_at.unwrap_or(created_at),
        completed_at: None,
        execution_time_ms: None,
        error_message: None,
        metadata: new.metadata.clone(),
        created_at,
        updated_at: created_at,
    }
}
