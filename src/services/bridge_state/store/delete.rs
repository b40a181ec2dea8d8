//! Deleting bridges.

use std::{cmp::Reverse, collections::HashSet};

use diesel::{
    prelude::*,
    sql_types::{Nullable, Text, Uuid},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use futures_util::{FutureExt, future::BoxFuture};

use super::no_bridge;
use crate::{
    db::{
        DbError,
        batch::{
            Operation,
            rounds::{Indexed, in_order, rounds},
            statement::{batch_statement, column},
        },
        schema::fsm_transitions,
    },
    domain::{
        error::Result,
        id::{BridgeId, TokenId, TransitionId},
        journal::{DELETE_EVENT, DELETED},
        namespace::Scoped,
    },
    services::bridge_state::model::{BridgeDeletion, ENTITY_TYPE},
};

batch_statement! {
    /// Locks bridges. Whoever was adding a batch has ended then, so that what
    /// comes after sees all batches.
    struct Lock<'a> {
        namespace: &'a str => Text,
        bridge_id: BridgeId => Uuid,
    }
    returns Uuid;
    " SELECT b.bridge_id
        FROM item CROSS JOIN LATERAL (
             SELECT b.bridge_id FROM bridge_states b
              WHERE b.bridge_id = item.bridge_id AND b.namespace IS NOT DISTINCT FROM item.namespace
                FOR UPDATE) b"
}

batch_statement! {
    /// Deletes bridges with their batches, each with a last row of the journal.
    struct Delete<'a> {
        namespace: &'a str => Text,
        bridge_id: BridgeId => Uuid,
        transition_id: TransitionId => Uuid,
        entity_type: &'a str => Text,
        to_state: &'a str => Text,
        transition_event: &'a str => Text,
        token_id: Option<TokenId> => Nullable<Uuid>,
    }
    returns Uuid;
    ", deleted AS (
        DELETE FROM bridge_states b USING item
         WHERE b.bridge_id = item.bridge_id AND b.namespace IS NOT DISTINCT FROM item.namespace
        RETURNING b.bridge_id, b.namespace, b.current_fsm_state, b.updated_at, item.transition_id,
                  item.entity_type, item.to_state, item.transition_event, item.token_id
    ), forgotten AS (
        DELETE FROM bridge_batches b USING deleted
         WHERE b.namespace = deleted.namespace AND b.bridge_id = deleted.bridge_id
    )
    INSERT INTO fsm_transitions
        (id, namespace, entity_id, entity_type, from_state, to_state, transition_event, token_id,
         created_at)
    SELECT transition_id, namespace, bridge_id, entity_type, current_fsm_state, to_state,
           transition_event, token_id,
           -- Not before the move that it waited for.
           greatest(now(), updated_at)
      FROM deleted
    RETURNING id"
}

/// Deletes bridges; answers whether there was something to delete.
pub struct DeleteBridges;

impl Operation for DeleteBridges {
    const NAME: &'static str = "DeleteBridges";

    type Item = Scoped<BridgeDeletion>;
    type Answer = bool;
    type Key = BridgeId;

    fn key(item: &Self::Item) -> BridgeId {
        item.bridge_id
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<bool>>, DbError>> {
        async move {
            let mut answers = Vec::with_capacity(items.len());
            for mut round in rounds(items, |item| [item.bridge_id]) {
                // Everybody locks in the same order, changes too, so nobody waits in a circle.
                round.sort_unstable_by_key(|(_, item)| Reverse(item.bridge_id));
                let deleted = connection
                    .transaction(async |connection| delete(connection, &round).await)
                    .await?;
                let round = round.into_iter();
                answers.extend(round.map(|(place, item)| (place, answer(item, &deleted))));
            }
            Ok(in_order(answers))
        }
        .boxed()
    }
}

async fn delete(
    connection: &mut AsyncPgConnection,
    round: &[Indexed<'_, Scoped<BridgeDeletion>>],
) -> QueryResult<HashSet<TransitionId>> {
    let lock = Lock {
        namespace: column(round, |item| item.namespace.as_str()),
        bridge_id: column(round, |item| item.bridge_id),
        ..Lock::default()
    };
    let _: Vec<BridgeId> = lock.load(connection).await?;
    let statement = Delete {
        namespace: column(round, |item| item.namespace.as_str()),
        bridge_id: column(round, |item| item.bridge_id),
        transition_id: column(round, |item| item.id),
        entity_type: column(round, |_| ENTITY_TYPE),
        to_state: column(round, |_| DELETED),
        transition_event: column(round, |_| DELETE_EVENT),
        token_id: column(round, |item| item.token_id),
        ..Delete::default()
    };
    let deleted: Vec<TransitionId> = statement.load(connection).await?;
    let mut deleted: HashSet<_> = deleted.into_iter().collect();
    if deleted.len() < round.len() {
        // What an earlier try of these very calls deleted, whose answer was lost
        // with its connection. The ids are ours, so they are of no other tenant.
        let before = fsm_transitions::table
            .filter(fsm_transitions::id.eq_any(column(round, |item| item.id)))
            .select(fsm_transitions::id);
        deleted.extend(before.load::<TransitionId>(connection).await?);
    }
    Ok(deleted)
}

fn answer(item: &BridgeDeletion, deleted: &HashSet<TransitionId>) -> Result<bool> {
    match deleted.contains(&item.id) {
        false if !item.allow_missing => Err(no_bridge(item.bridge_id)),
        is_deleted => Ok(is_deleted),
    }
}
