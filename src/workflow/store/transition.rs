//! Moving workflows.
//!
//! A batch is one transaction: lock the rows, decide in Rust by the rules of
//! `model`, write rows and journal. So the rules are in one place, and several
//! moves of one workflow in one batch apply in their order.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_types::{BigInt, Bytea, Jsonb, Nullable, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::{WorkflowSql, no_workflow, workflow_columns};
use crate::{
    db::{DbError, batch::Operation, schema::fsm_transitions, statement::batch_statement},
    digest::RequestDigest,
    error::{Error, Resource, Result},
    id::{TransitionId, WorkflowId},
    json::JsonObject,
    namespace::Scoped,
    workflow::model::{Move, Moved, State, Transition, Workflow},
};

batch_statement! {
    /// Locks and reads workflows, in the order of the items. The lock is the
    /// one of an UPDATE that leaves keys alone, so steps can still be added.
    struct LockWorkflows<'a> {
        namespace: &'a str => Text,
        id: WorkflowId => Uuid,
    }
    returns (Timestamptz, WorkflowSql);
    concat!(
        " SELECT now(), ", workflow_columns!(), "
            FROM item CROSS JOIN LATERAL (
                 SELECT * FROM workflow_executions w
                  WHERE w.id = item.id AND w.namespace = item.namespace
                    FOR NO KEY UPDATE) w"
    )
}

batch_statement! {
    /// Writes workflows that moved. Metadata that did not change is NULL.
    struct UpdateWorkflows<'a> {
        namespace: &'a str => Text,
        id: WorkflowId => Uuid,
        current_state: State => Text,
        completed_at: Option<DateTime<Utc>> => Nullable<Timestamptz>,
        execution_time_ms: Option<i64> => Nullable<BigInt>,
        error_message: Option<&'a str> => Nullable<Text>,
        metadata: Option<&'a JsonObject> => Nullable<Jsonb>,
    }
    returns ();
    " UPDATE workflow_executions w
         SET current_state = item.current_state, completed_at = item.completed_at,
             execution_time_ms = item.execution_time_ms, error_message = item.error_message,
             metadata = coalesce(item.metadata, w.metadata), updated_at = now()
        FROM item
       WHERE w.id = item.id AND w.namespace = item.namespace"
}

batch_statement! {
    /// Appends rows to the journal.
    struct InsertTransitions<'a> {
        id: TransitionId => Uuid,
        namespace: &'a str => Text,
        entity_id: uuid::Uuid => Uuid,
        entity_type: &'a str => Text,
        from_state: Option<&'a str> => Nullable<Text>,
        to_state: &'a str => Text,
        transition_event: &'a str => Text,
        transition_data: &'a JsonObject => Jsonb,
        request_digest: Option<RequestDigest> => Nullable<Bytea>,
    }
    returns ();
    " INSERT INTO fsm_transitions
          (id, namespace, entity_id, entity_type, from_state, to_state, transition_event,
           transition_data, request_digest)
      SELECT id, namespace, entity_id, entity_type, from_state, to_state, transition_event,
             transition_data, request_digest
        FROM item ORDER BY ordinality"
}

/// Moves workflows by the lifecycle: the same transition_id with the same content once.
pub struct MoveWorkflows;

impl Operation for MoveWorkflows {
    type Item = Scoped<Move>;
    type Answer = Moved;
    type Key = WorkflowId;

    fn key(item: &Self::Item) -> WorkflowId {
        item.workflow_id
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Moved>>, DbError>> {
        Box::pin(async move {
            connection
                .transaction(async |connection| move_all(connection, items).await)
                .await
        })
    }

    /// Somebody else used the transition_id between our looking and our writing.
    fn refusal(item: &Self::Item, error: DbError) -> Error {
        match error.constraint() {
            Some("fsm_transitions_pkey") => id_conflict(item),
            _ => error.into(),
        }
    }
}

fn id_conflict(item: &Move) -> Error {
    Error::IdConflict {
        resource: Resource::Transition,
        field: "transition_id",
        name: item.chosen_id.unwrap_or_default().to_string(),
    }
}

async fn move_all(
    connection: &mut AsyncPgConnection,
    items: &[&Scoped<Move>],
) -> Result<Vec<Result<Moved>>, DbError> {
    let mut plan = Plan {
        known: known_transitions(connection, items).await?,
        ..Plan::default()
    };
    for (now, workflow) in lock(connection, items).await? {
        plan.now = now;
        plan.workflows.insert(workflow.id, workflow);
    }
    let answers = items.iter().map(|item| plan.decide(item)).collect();
    plan.write(connection).await?;
    Ok(answers)
}

async fn lock(
    connection: &mut AsyncPgConnection,
    items: &[&Scoped<Move>],
) -> QueryResult<Vec<(DateTime<Utc>, Workflow)>> {
    let mut rows: Vec<_> = items
        .iter()
        .map(|item| (item.workflow_id, item.namespace.as_str()))
        .collect();
    // Everybody locks in the same order, so nobody waits in a circle.
    rows.sort_unstable();
    rows.dedup();
    let (id, namespace) = rows.into_iter().unzip();
    let statement = LockWorkflows {
        id,
        namespace,
        ..LockWorkflows::default()
    };
    statement.load(connection).await
}

/// The rows of the journal that already have one of the ids that callers chose.
/// It alone looks beyond the namespace, because the key does; what it finds of
/// other tenants is never answered, and [`Plan::replay`] tells it from nothing.
async fn known_transitions(
    connection: &mut AsyncPgConnection,
    items: &[&Scoped<Move>],
) -> QueryResult<HashMap<TransitionId, Transition>> {
    let chosen: Vec<_> = items.iter().filter_map(|item| item.chosen_id).collect();
    if chosen.is_empty() {
        return Ok(HashMap::new());
    }
    let found: Vec<Transition> = fsm_transitions::table
        .filter(fsm_transitions::id.eq_any(chosen))
        .select(Transition::as_select())
        .load(connection)
        .await?;
    Ok(found.into_iter().map(|row| (row.id, row)).collect())
}

/// What a batch is going to write.
#[derive(Default)]
struct Plan {
    now: DateTime<Utc>,
    /// As they are after the moves so far.
    workflows: HashMap<WorkflowId, Workflow>,
    /// The journal as far as it matters, with the moves so far.
    known: HashMap<TransitionId, Transition>,
    moved: HashSet<WorkflowId>,
    has_new_metadata: HashSet<WorkflowId>,
    journal: Vec<Transition>,
}

impl Plan {
    fn decide(&mut self, item: &Scoped<Move>) -> Result<Moved> {
        let workflow = self
            .workflows
            .get_mut(&item.workflow_id)
            .filter(|workflow| workflow.namespace == item.namespace.as_str())
            .ok_or_else(|| no_workflow(item.workflow_id))?;
        let chosen = item.chosen_id.as_ref();
        if let Some(stored) = chosen.and_then(|id| self.known.get(id)) {
            return replay(item, stored, workflow);
        }
        let transition = workflow.apply(item, self.now)?;
        self.moved.insert(workflow.id);
        if !item.metadata_patch.is_empty() {
            self.has_new_metadata.insert(workflow.id);
        }
        self.known.insert(transition.id, transition.clone());
        self.journal.push(transition.clone());
        Ok(Moved {
            workflow: workflow.clone(),
            transition,
            applied: true,
        })
    }

    async fn write(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        if self.journal.is_empty() {
            return Ok(());
        }
        let connection = &*connection;
        let (update, insert) = (self.update(), self.insert());
        // Both are on their way before the first is answered.
        futures_util::future::try_join(
            update.execute(&mut &*connection),
            insert.execute(&mut &*connection),
        )
        .await?;
        Ok(())
    }

    fn update(&self) -> UpdateWorkflows<'_> {
        let rows: Vec<&Workflow> = self
            .moved
            .iter()
            .filter_map(|id| self.workflows.get(id))
            .collect();
        let rows = rows.as_slice();
        UpdateWorkflows {
            namespace: rows.iter().map(|row| row.namespace.as_str()).collect(),
            id: rows.iter().map(|row| row.id).collect(),
            current_state: rows.iter().map(|row| row.current_state).collect(),
            completed_at: rows.iter().map(|row| row.completed_at).collect(),
            execution_time_ms: rows.iter().map(|row| row.execution_time_ms).collect(),
            error_message: rows
                .iter()
                .map(|row| row.error_message.as_deref())
                .collect(),
            metadata: rows
                .iter()
                .map(|row| {
                    self.has_new_metadata
                        .contains(&row.id)
                        .then_some(&row.metadata)
                })
                .collect(),
            ..UpdateWorkflows::default()
        }
    }

    fn insert(&self) -> InsertTransitions<'_> {
        let rows = self.journal.as_slice();
        InsertTransitions {
            id: rows.iter().map(|row| row.id).collect(),
            namespace: rows.iter().map(|row| row.namespace.as_str()).collect(),
            entity_id: rows.iter().map(|row| row.entity_id).collect(),
            entity_type: rows.iter().map(|row| row.entity_type.as_str()).collect(),
            from_state: rows.iter().map(|row| row.from_state.as_deref()).collect(),
            to_state: rows.iter().map(|row| row.to_state.as_str()).collect(),
            transition_event: rows
                .iter()
                .map(|row| row.transition_event.as_str())
                .collect(),
            transition_data: rows.iter().map(|row| &row.transition_data).collect(),
            request_digest: rows.iter().map(|row| row.request_digest).collect(),
            ..InsertTransitions::default()
        }
    }
}

fn replay(item: &Scoped<Move>, stored: &Transition, workflow: &Workflow) -> Result<Moved> {
    let is_same = stored.request_digest == Some(item.request_digest)
        && stored.namespace == item.namespace.as_str();
    if !is_same {
        return Err(id_conflict(item));
    }
    Ok(Moved {
        workflow: workflow.clone(),
        transition: stored.clone(),
        applied: false,
    })
}
