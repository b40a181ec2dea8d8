//! Transitions of entities, as [optimistic](crate::db::batch::optimistic) batches.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_types::{BigInt, Bool, Bytea, Jsonb, Nullable, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::{
    EntitySql, MachineSql, Machines, current_machine, entity_columns, item_entity, machine_columns,
    outdated_machines,
};
use crate::{
    db::{
        DbError,
        batch::{
            Answers, Operation,
            insert_once::taken,
            optimistic::{FirstItems, OptimisticWrite, Written, run_optimistic},
            rounds::in_lock_order,
            statement::{batch_statement, index_of},
        },
        journal::{
            KnownTransitions, PositionSql, Positions, Transition, TransitionSql, id_conflict,
            transition_columns, write_error,
        },
        planner::{in_set, same_namespace, unindexed_eq},
    },
    domain::{
        digest::RequestDigest,
        error::{Error, Result},
        id::{EntityId, TokenId, TransitionId},
        json::JsonObject,
        namespace::{Namespace, Scoped},
        page::PageRow,
        position::Position,
    },
    services::fsm::model::{Entity, EntityKey, Machine, Moved, NewTransition},
};

batch_statement! {
    /// Reads the database's time and entities, and with the first item of each type its
    /// current machine. Also reads whether the journal has the item's id, and the row with it
    /// if an earlier try of the same call wrote it.
    struct ReadEntities<'a> {
        id: TransitionId => Uuid,
        namespace: &'a str => Text,
        entity_type: &'a str => Text,
        entity_id: EntityId => Uuid,
        request_digest: RequestDigest => Bytea,
        reads_machine: bool => Bool,
    }
    returns (
        BigInt,
        Timestamptz,
        Nullable<EntitySql>,
        Nullable<Uuid>,
        Nullable<TransitionSql>,
        Nullable<MachineSql>,
    );
    concat!(
        " SELECT item.ordinality, now(), ", entity_columns!(), ", taken.id, ",
                 transition_columns!(), ", ", machine_columns!(), "
            FROM item", item_entity!(), taken!("fsm_transitions", "t"), current_machine!()
    )
}

batch_statement! {
    /// Updates entities and appends their transitions to the journal, except for entities
    /// whose revision changed since it was read. Writes nothing at all if a machine is
    /// outdated. An item is one transition. The last one of an entity carries the new content
    /// of its row. Returns the positions of the transitions.
    struct WriteTransitions<'a> {
        id: TransitionId => Uuid,
        namespace: &'a str => Text,
        entity_type: &'a str => Text,
        entity_id: EntityId => Uuid,
        from_state: Option<&'a str> => Nullable<Text>,
        to_state: &'a str => Text,
        transition_event: &'a str => Text,
        transition_data: &'a JsonObject => Jsonb,
        request_digest: Option<RequestDigest> => Nullable<Bytea>,
        token_id: Option<TokenId> => Nullable<Uuid>,
        moved_at: DateTime<Utc> => Timestamptz,
        is_last: bool => Bool,
        old_revision: i64 => BigInt,
        new_revision: i64 => BigInt,
        checks_machine: bool => Bool,
        machine_digest: Option<RequestDigest> => Nullable<Bytea>,
    }
    returns PositionSql;
    concat!(", ", outdated_machines!(), ", inserted AS (
        INSERT INTO fsm_entities
            (namespace, entity_type, entity_id, current_state, revision, state_since, created_at)
        SELECT namespace, entity_type, entity_id, to_state, new_revision, moved_at, moved_at
          FROM item
         WHERE is_last AND old_revision = 0 AND NOT (SELECT is_outdated FROM outdated)
            ON CONFLICT ON CONSTRAINT fsm_entities_pkey DO NOTHING
        RETURNING namespace, entity_type, entity_id
    ), moved AS (
        UPDATE fsm_entities e
           SET current_state = item.to_state, revision = item.new_revision,
               state_since = item.moved_at
          FROM item
         WHERE e.entity_id = item.entity_id
           AND ", same_namespace!("e"), "
           AND ", unindexed_eq!("e.entity_type", "item.entity_type"), "
           AND item.is_last AND item.old_revision > 0
           AND e.revision = item.old_revision AND NOT (SELECT is_outdated FROM outdated)
        RETURNING e.namespace, e.entity_type, e.entity_id
    ), changed AS (
        SELECT * FROM inserted UNION ALL SELECT * FROM moved
    )
    INSERT INTO fsm_transitions
        (id, namespace, entity_id, entity_type, from_state, to_state, transition_event,
         transition_data, request_digest, token_id, created_at)
    SELECT id, namespace, entity_id, entity_type, from_state, to_state, transition_event,
           transition_data, request_digest, token_id, moved_at
      FROM item
     WHERE ", in_set!("(namespace, entity_type, entity_id)", "SELECT * FROM changed"), "
     ORDER BY ordinality
    RETURNING id, xid, seq")
}

/// Moves entities through their states. Idempotent by transition_id.
pub struct RecordTransitions;

impl Operation for RecordTransitions {
    const NAME: &'static str = "RecordTransitions";
    const READS_DOCUMENTS: bool = true;

    type Item = Scoped<NewTransition>;
    type Answer = Moved;
    type Key = EntityId;

    fn key(item: &Self::Item) -> EntityId {
        item.entity.entity_id
    }

    fn tenant(item: &Self::Item) -> &str {
        item.namespace.as_str()
    }

    fn journal(item: &Self::Item) -> Option<&str> {
        Some(item.namespace.as_str())
    }

    fn document_bytes(item: &Self::Item) -> usize {
        item.transition_data.wire_len()
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>> {
        run_optimistic::<Moves>(connection, items)
    }

    fn bytes_read(moved: &Moved) -> usize {
        moved.transition.transition_data.wire_len()
    }

    fn item_error(item: &Self::Item, error: DbError) -> Error {
        write_error(item.id, error)
    }
}

/// Identifies an entity across all namespaces.
type Key<'a> = (&'a str, &'a EntityKey);

fn key(item: &Scoped<NewTransition>) -> Key<'_> {
    (item.namespace.as_str(), &item.entity)
}

/// The state of a batch.
#[derive(Default)]
struct Moves<'a> {
    now: DateTime<Utc>,
    first: FirstItems,
    /// The entities after the transitions decided so far, with the revisions that were read,
    /// 0 for new entities.
    entities: HashMap<Key<'a>, (Entity, i64)>,
    machines: Machines,
    /// Transitions of the items' ids, including those decided so far.
    known: KnownTransitions,
    journal: Vec<(Key<'a>, Transition)>,
}

type Row = (
    i64,
    DateTime<Utc>,
    Option<Entity>,
    Option<TransitionId>,
    Option<Transition>,
    Option<Machine>,
);

/// Returns the size of the documents of a row, in bytes.
fn size(row: &Row) -> usize {
    let (_, _, _, _, same, machine) = row;
    same.as_ref().map_or(0, PageRow::size) + machine.as_ref().map_or(0, PageRow::size)
}

impl<'a> OptimisticWrite<'a> for Moves<'a> {
    type Item = Scoped<NewTransition>;
    type Answer = Moved;
    type Key = Key<'a>;

    fn key(item: &'a Self::Item) -> Key<'a> {
        key(item)
    }

    async fn read(
        connection: &mut AsyncPgConnection,
        items: &[&'a Scoped<NewTransition>],
    ) -> QueryResult<Self> {
        let keys = items.iter().map(|item| key(item));
        let read = ReadEntities {
            id: items.iter().map(|item| item.id).collect(),
            namespace: keys.clone().map(|(namespace, _)| namespace).collect(),
            entity_type: keys
                .clone()
                .map(|(_, it)| it.entity_type.as_str())
                .collect(),
            entity_id: keys.clone().map(|(_, it)| it.entity_id).collect(),
            request_digest: items.iter().map(|item| item.request_digest).collect(),
            reads_machine: Machines::firsts(
                keys.map(|(namespace, it)| (namespace, it.entity_type.as_str())),
            ),
        };
        let rows = read.load_stream::<Row>(connection).await?;
        let (rows, first) = FirstItems::collect(rows, |row| row.0, size).await?;
        let mut batch = Moves {
            first,
            ..Moves::default()
        };
        for (ordinality, now, entity, taken, same, machine) in rows {
            batch.now = now;
            batch.known.found(taken, same);
            batch.machines.extend(machine);
            if let (Some(item), Some(entity)) = (items.get(index_of(ordinality)), entity) {
                let revision = entity.revision;
                batch.entities.insert(key(item), (entity, revision));
            }
        }
        Ok(batch)
    }

    fn next_is_read(&mut self) -> bool {
        self.first.take()
    }

    fn decide(&mut self, item: &'a Scoped<NewTransition>) -> Result<Moved> {
        let current = self.entities.get(&key(item));
        let same = self.known.duplicate(item.id, item.request_digest, item)?;
        if let Some(transition) = same.cloned() {
            let (entity, _) = current.ok_or_else(|| id_conflict(item.id))?;
            return Ok(Moved {
                entity: entity.clone(),
                transition,
                // If the service made the id, an earlier try of this very call wrote it.
                applied: !item.is_id_chosen,
            });
        }
        let namespace: &Namespace = &item.namespace;
        let machine = self
            .machines
            .of(namespace.as_str(), &item.entity.entity_type);
        let (entity, transition) = Entity::after(
            current.map(|(entity, _)| entity),
            item,
            machine.map(|machine| &**machine),
            namespace,
            self.now,
        )?;
        let transition = Transition {
            token_id: item.token_id,
            ..transition
        };
        let revision = current.map_or(0, |(_, revision)| *revision);
        self.entities.insert(key(item), (entity.clone(), revision));
        self.known.add(transition.clone());
        self.journal.push((key(item), transition.clone()));
        Ok(Moved {
            entity,
            transition,
            applied: true,
        })
    }

    async fn write(&self, connection: &mut AsyncPgConnection) -> QueryResult<Written<Key<'a>>> {
        if self.journal.is_empty() {
            return Ok(Written::default());
        }
        let positions: Vec<Position> = self.statement().load(connection).await?;
        let planned = self.journal.iter().map(|(key, row)| (row.id, *key));
        Ok(Written::of(planned, positions))
    }

    fn complete(moved: &mut Moved, positions: &Positions) {
        moved.transition.complete(positions);
    }
}

impl Moves<'_> {
    fn statement(&self) -> WriteTransitions<'_> {
        let mut write = WriteTransitions::default();
        let rows = in_lock_order(self.journal.iter().collect(), |(key, _)| *key);
        for ((key, row), is_last) in rows {
            let (namespace, entity) = *key;
            let machine = self.machines.of(namespace, &entity.entity_type);
            let (stored, revision) = match self.entities.get(key) {
                Some((stored, revision)) => (stored.revision, *revision),
                None => (0, 0),
            };
            write.id.push(row.id);
            write.namespace.push(namespace);
            write.entity_type.push(&entity.entity_type);
            write.entity_id.push(entity.entity_id);
            write.from_state.push(row.from_state.as_deref());
            write.to_state.push(&row.to_state);
            write.transition_event.push(&row.transition_event);
            write.transition_data.push(&row.transition_data);
            write.request_digest.push(row.request_digest);
            write.token_id.push(row.token_id);
            write.moved_at.push(row.created_at);
            write.is_last.push(is_last);
            write.old_revision.push(revision);
            write.new_revision.push(stored);
            write
                .machine_digest
                .push(machine.map(|it| it.definition_digest));
        }
        let namespaces = write.namespace.iter().copied();
        let kinds = namespaces.zip(write.entity_type.iter().copied());
        write.checks_machine = Machines::firsts(kinds);
        write
    }
}
