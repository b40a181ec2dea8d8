//! Transitions of workflows, as [optimistic](crate::db::batch::optimistic) batches.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_types::{BigInt, Bool, Bytea, Jsonb, Nullable, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::{WorkflowSql, no_workflow, workflow_columns};
use crate::{
    db::{
        DbError,
        batch::{
            Answers, Operation,
            insert_once::taken,
            optimistic::{FirstItems, OptimisticWrite, Written, run_optimistic},
            rounds::in_lock_order,
            statement::batch_statement,
        },
        journal::{
            KnownTransitions, PositionSql, Positions, Transition, TransitionSql,
            transition_columns, write_error,
        },
        planner::{in_set, left_lateral, same_namespace},
    },
    domain::{
        digest::RequestDigest,
        error::{Error, Result},
        id::{TokenId, TransitionId, WorkflowId},
        json::JsonObject,
        namespace::Scoped,
        page::PageRow,
        position::Position,
    },
    services::workflow::model::{ENTITY_TYPE, Move, Moved, Workflow},
};

batch_statement! {
    /// Reads the database's time, and with the first item of each workflow its row and the
    /// version of it. Also reads whether the journal has the item's id, and the row with it if
    /// an earlier try of the same call wrote it.
    struct ReadWorkflows<'a> {
        id: TransitionId => Uuid,
        namespace: &'a str => Text,
        workflow_id: WorkflowId => Uuid,
        request_digest: RequestDigest => Bytea,
        reads_workflow: bool => Bool,
    }
    returns (
        BigInt,
        Timestamptz,
        Nullable<BigInt>,
        Nullable<WorkflowSql>,
        Nullable<Uuid>,
        Nullable<TransitionSql>,
    );
    concat!(
        " SELECT item.ordinality, now(), w.xmin::text::bigint, ", workflow_columns!(), ", taken.id, ",
                 transition_columns!(), "
            FROM item",
        left_lateral!("w",
            "SELECT w.xmin, w.* FROM workflow_executions w
              WHERE item.reads_workflow
                AND w.id = item.workflow_id AND ", same_namespace!("w"), " LIMIT 1"),
        taken!("fsm_transitions", "t")
    )
}

batch_statement! {
    /// Updates workflows and appends their transitions to the journal, except for workflows
    /// whose row changed since it was read. An item is one transition. The last one of a
    /// workflow carries the new content of its row. Unchanged metadata is NULL. Returns the
    /// positions of the transitions.
    struct WriteMoves<'a> {
        id: TransitionId => Uuid,
        namespace: &'a str => Text,
        workflow_id: WorkflowId => Uuid,
        entity_type: &'a str => Text,
        from_state: Option<&'a str> => Nullable<Text>,
        to_state: &'a str => Text,
        transition_event: &'a str => Text,
        transition_data: &'a JsonObject => Jsonb,
        request_digest: Option<RequestDigest> => Nullable<Bytea>,
        token_id: Option<TokenId> => Nullable<Uuid>,
        moved_at: DateTime<Utc> => Timestamptz,
        version: i64 => BigInt,
        is_last: bool => Bool,
        completed_at: Option<DateTime<Utc>> => Nullable<Timestamptz>,
        execution_time_ms: Option<i64> => Nullable<BigInt>,
        error_message: Option<&'a str> => Nullable<Text>,
        metadata: Option<&'a JsonObject> => Nullable<Jsonb>,
    }
    returns PositionSql;
    concat!(", moved AS (
        UPDATE workflow_executions w
           SET current_state = item.to_state, completed_at = item.completed_at,
               execution_time_ms = item.execution_time_ms, error_message = item.error_message,
               metadata = coalesce(item.metadata, w.metadata), updated_at = item.moved_at
          FROM item
         WHERE w.id = item.workflow_id AND ", same_namespace!("w"), " AND item.is_last
           AND w.xmin = item.version::text::xid
        RETURNING w.id
    )
    INSERT INTO fsm_transitions
        (id, namespace, entity_id, entity_type, from_state, to_state, transition_event,
         transition_data, request_digest, token_id, created_at)
    SELECT item.id, item.namespace, item.workflow_id, item.entity_type, item.from_state,
           item.to_state, item.transition_event, item.transition_data, item.request_digest,
           item.token_id, item.moved_at
      FROM item
     WHERE ", in_set!("item.workflow_id", "SELECT id FROM moved"), "
     ORDER BY item.ordinality
    RETURNING id, xid, seq")
}

/// Moves workflows along their lifecycle. Idempotent by transition_id.
pub struct MoveWorkflows;

impl Operation for MoveWorkflows {
    const NAME: &'static str = "MoveWorkflows";

    const READS_DOCUMENTS: bool = true;

    type Item = Scoped<Move>;
    type Answer = Moved;
    type Key = WorkflowId;

    fn key(item: &Self::Item) -> WorkflowId {
        item.workflow_id
    }

    fn tenant(item: &Self::Item) -> &str {
        item.namespace.as_str()
    }

    fn journal(item: &Self::Item) -> Option<&str> {
        Some(item.namespace.as_str())
    }

    fn document_bytes(item: &Self::Item) -> usize {
        item.transition_data.wire_len() + item.metadata_patch.wire_len()
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>> {
        run_optimistic::<Moves>(connection, items)
    }

    fn bytes_read(moved: &Moved) -> usize {
        moved.workflow.size() + moved.transition.size()
    }

    fn item_error(item: &Self::Item, error: DbError) -> Error {
        write_error(item.id, error)
    }
}

/// The state of a batch.
#[derive(Default)]
struct Moves {
    now: DateTime<Utc>,
    first: FirstItems,
    /// The workflows after the transitions decided so far, with the versions of their rows.
    workflows: HashMap<WorkflowId, (Workflow, i64)>,
    /// Transitions of the items' ids, including those decided so far.
    known: KnownTransitions,
    has_new_metadata: HashSet<WorkflowId>,
    journal: Vec<Transition>,
}

type Row = (
    i64,
    DateTime<Utc>,
    Option<i64>,
    Option<Workflow>,
    Option<TransitionId>,
    Option<Transition>,
);

fn size((_, _, _, workflow, _, transition): &Row) -> usize {
    workflow.as_ref().map_or(0, Workflow::size) + transition.as_ref().map_or(0, PageRow::size)
}

impl<'a> OptimisticWrite<'a> for Moves {
    type Item = Scoped<Move>;
    type Answer = Moved;
    type Key = WorkflowId;

    fn key(item: &Self::Item) -> WorkflowId {
        item.workflow_id
    }

    async fn read(connection: &mut AsyncPgConnection, items: &[&Self::Item]) -> QueryResult<Self> {
        let mut seen = HashSet::new();
        let first = items
            .iter()
            .map(|item| seen.insert((item.namespace.as_str(), item.workflow_id)));
        let read = ReadWorkflows {
            reads_workflow: first.collect(),
            id: items.iter().map(|item| item.id).collect(),
            namespace: items.iter().map(|item| item.namespace.as_str()).collect(),
            workflow_id: items.iter().map(|item| item.workflow_id).collect(),
            request_digest: items.iter().map(|item| item.request_digest).collect(),
        };
        let rows = read.load_stream::<Row>(connection).await?;
        let (rows, first) = FirstItems::collect(rows, |row| row.0, size).await?;
        let mut batch = Moves {
            first,
            ..Moves::default()
        };
        for (_, now, version, workflow, taken, same) in rows {
            batch.now = now;
            batch.known.found(taken, same);
            let row = workflow.zip(version);
            batch.workflows.extend(row.map(|row| (row.0.id, row)));
        }
        Ok(batch)
    }

    fn next_is_read(&mut self) -> bool {
        self.first.take()
    }

    fn decide(&mut self, item: &Scoped<Move>) -> Result<Moved> {
        let (workflow, _) = self
            .workflows
            .get_mut(&item.workflow_id)
            .filter(|(workflow, _)| workflow.namespace == item.namespace.as_str())
            .ok_or_else(|| no_workflow(&item.namespace, item.workflow_id))?;
        let same = self.known.duplicate(item.id, item.request_digest, item)?;
        if let Some(transition) = same.cloned() {
            self.first.count(workflow.size() + transition.size());
            return Ok(Moved {
                workflow: workflow.clone(),
                transition,
                // If the service made the id, an earlier try of this very call wrote it.
                applied: !item.is_id_chosen,
            });
        }
        let transition = Transition {
            token_id: item.token_id,
            ..workflow.apply(item, self.now)?
        };
        if !item.metadata_patch.is_empty() {
            self.has_new_metadata.insert(workflow.id);
        }
        self.known.add(transition.clone());
        self.journal.push(transition.clone());
        self.first.count(workflow.size());
        Ok(Moved {
            workflow: workflow.clone(),
            transition,
            applied: true,
        })
    }

    async fn write(&self, connection: &mut AsyncPgConnection) -> QueryResult<Written<WorkflowId>> {
        if self.journal.is_empty() {
            return Ok(Written::default());
        }
        let positions: Vec<Position> = self.statement().load(connection).await?;
        let planned = self.journal.iter();
        let planned = planned.map(|row| (row.id, WorkflowId(row.entity_id)));
        Ok(Written::of(planned, positions))
    }

    fn complete(moved: &mut Moved, positions: &Positions) {
        moved.transition.complete(positions);
    }
}

impl Moves {
    fn statement(&self) -> WriteMoves<'_> {
        let mut write = WriteMoves::default();
        let rows: Vec<&Transition> = self.journal.iter().collect();
        for (row, is_last) in in_lock_order(rows, |row| row.entity_id) {
            let id = WorkflowId(row.entity_id);
            let Some((workflow, version)) = self.workflows.get(&id) else {
                continue;
            };
            write.id.push(row.id);
            write.namespace.push(&row.namespace);
            write.workflow_id.push(id);
            write.entity_type.push(ENTITY_TYPE);
            write.from_state.push(row.from_state.as_deref());
            write.to_state.push(&row.to_state);
            write.transition_event.push(&row.transition_event);
            write.transition_data.push(&row.transition_data);
            write.request_digest.push(row.request_digest);
            write.token_id.push(row.token_id);
            write.moved_at.push(row.created_at);
            write.version.push(*version);
            write.is_last.push(is_last);
            write.completed_at.push(workflow.completed_at);
            write.execution_time_ms.push(workflow.execution_time_ms);
            write.error_message.push(workflow.error_message.as_deref());
            let has_new_metadata = self.has_new_metadata.contains(&id);
            write
                .metadata
                .push(has_new_metadata.then_some(&workflow.metadata));
        }
        write
    }
}
