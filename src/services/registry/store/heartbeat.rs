//! Heartbeats, the most frequent of all writes.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use diesel::{
    prelude::*,
    sql_types::{BigInt, Jsonb, Nullable, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::no_node;
use crate::{
    db::{
        DbError,
        batch::{
            Answers, Operation,
            optimistic::{Outcomes, Undecided, retry_conflicts},
            rounds::Indexed,
            statement::{batch_statement, column, index_of},
        },
        journal::{PositionSql, by_id},
        planner::lookup,
    },
    domain::{
        error::Result,
        id::{TokenId, TransitionId},
        json::JsonObject,
        namespace::{Namespace, Scoped},
        position::Position,
    },
    services::registry::model::{
        ENTITY_TYPE, HEARTBEAT_EVENT, Heartbeat, HeartbeatAck, NodeHealth, NodeId,
    },
};

batch_statement! {
    /// Updates the heartbeats of nodes, and journals changes of health. Skips nodes whose
    /// health another statement changes at the same time, so that the journal has the correct
    /// previous state. Returns the updated nodes, and the positions of the rows of the journal.
    struct Touch<'a> {
        node_id: &'a str => Text,
        owner: &'a str => Text,
        health_status: Option<NodeHealth> => Nullable<Text>,
        metadata: Option<&'a JsonObject> => Nullable<Jsonb>,
        transition_id: TransitionId => Uuid,
        namespace: &'a str => Text,
        entity_id: uuid::Uuid => Uuid,
        entity_type: &'a str => Text,
        transition_event: &'a str => Text,
        token_id: Option<TokenId> => Nullable<Uuid>,
    }
    returns (Nullable<(BigInt, BigInt, Timestamptz, Text)>, Nullable<PositionSql>);
    concat!(", touched AS (
        UPDATE node_registrations n
           SET health_status = coalesce(item.health_status, n.health_before_silence, n.health_status),
               health_before_silence = NULL,
               metadata = coalesce(item.metadata, n.metadata),
               last_heartbeat = now(), updated_at = now()
          FROM item", lookup!("node_registrations", "old",
               "old.node_id = item.node_id AND old.owner = item.owner"), "
         WHERE n.node_id = item.node_id AND n.owner = item.owner
           AND n.health_status = old.health_status
        RETURNING item.ordinality, n.node_id, n.owner, n.heartbeat_ttl_ms, n.last_heartbeat, n.health_status,
                  old.health_status AS from_state, item.transition_id, item.namespace,
                  item.entity_id, item.entity_type, item.transition_event, item.token_id
    ), journaled AS (
        INSERT INTO fsm_transitions
            (id, namespace, entity_id, entity_type, from_state, to_state, transition_event,
             transition_data, token_id)
        SELECT transition_id, namespace, entity_id, entity_type, from_state, health_status,
               transition_event, jsonb_build_object('node_id', node_id, 'owner', owner), token_id
          FROM touched WHERE health_status <> from_state
        RETURNING id, xid, seq
    )
    SELECT ordinality, heartbeat_ttl_ms, last_heartbeat, health_status,
           NULL::uuid, NULL::xid8, NULL::bigint
      FROM touched
     UNION ALL
    SELECT NULL, NULL, NULL, NULL, id, xid, seq FROM journaled")
}

batch_statement! {
    /// Finds out which nodes exist.
    struct FindNodes<'a> {
        node_id: &'a str => Text,
        owner: &'a str => Text,
    }
    returns BigInt;
    concat!(
        " SELECT item.ordinality FROM item",
        lookup!("node_registrations", "n", "n.node_id = item.node_id AND n.owner = item.owner")
    )
}

/// Stores heartbeats.
pub struct TouchNodes;

impl Operation for TouchNodes {
    const NAME: &'static str = "TouchNodes";

    type Item = Scoped<Heartbeat>;
    type Answer = HeartbeatAck;
    type Key = uuid::Uuid;

    fn key(item: &Self::Item) -> uuid::Uuid {
        item.node_id.entity_id()
    }

    fn tenant(item: &Self::Item) -> &str {
        item.namespace.as_str()
    }

    fn journal(_item: &Self::Item) -> Option<&str> {
        Some(Namespace::registry_name())
    }

    fn document_bytes(item: &Self::Item) -> usize {
        item.metadata.as_ref().map_or(0, JsonObject::wire_len)
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>> {
        Box::pin(async move {
            let (latest, positions) = latest(items);
            let latest: Vec<_> = latest.iter().collect();
            let answers = retry_conflicts(connection, &latest, |connection, items| {
                Box::pin(attempt(connection, items))
            });
            let answers = answers.await?;
            let answers = positions.into_iter().filter_map(|index| answers.get(index));
            Ok(answers.cloned().collect())
        })
    }
}

/// The heartbeats of one node in one batch, merged: the latest value of each field. So a node
/// that sends far too many heartbeats costs one write per batch.
struct Latest<'a> {
    node_id: &'a NodeId,
    owner: &'a Namespace,
    health_status: Option<NodeHealth>,
    metadata: Option<&'a JsonObject>,
    /// The token that sent the latest health.
    token_id: Option<TokenId>,
}

/// Merges heartbeats by node. Also returns for each item the index of its node.
fn latest<'a>(items: &[&'a Scoped<Heartbeat>]) -> (Vec<Latest<'a>>, Vec<usize>) {
    let mut all: Vec<Latest<'a>> = Vec::with_capacity(items.len());
    let mut indexes: HashMap<(&Namespace, &NodeId), usize> = HashMap::with_capacity(items.len());
    let positions = items.iter().map(|item| {
        let index = *indexes
            .entry((&item.namespace, &item.node_id))
            .or_insert_with(|| {
                all.push(Latest {
                    node_id: &item.node_id,
                    owner: &item.namespace,
                    health_status: None,
                    metadata: None,
                    token_id: item.token_id,
                });
                all.len() - 1
            });
        if let Some(latest) = all.get_mut(index) {
            if item.health_status.is_some() {
                latest.health_status = item.health_status;
                latest.token_id = item.token_id;
            }
            latest.metadata = item.metadata.as_ref().or(latest.metadata);
        }
        index
    });
    let positions = positions.collect();
    (all, positions)
}

/// Stores the heartbeats of distinct nodes. A concurrent change of a node's health is a write
/// conflict.
async fn attempt(
    connection: &mut AsyncPgConnection,
    items: &[&Latest<'_>],
) -> Result<Outcomes<HeartbeatAck>, DbError> {
    let mut batch: Vec<Indexed<_>> = items.iter().copied().enumerate().collect();
    // The lock order, see `rounds::in_lock_order`.
    batch.sort_unstable_by_key(|(_, item)| item.node_id.as_str());
    let missing = items.iter().map(|item| Ok(Err(no_node(item.node_id))));
    let mut answers: Outcomes<HeartbeatAck> = missing.collect();
    let mut set = |batch: &[Indexed<_>], ordinality: i64, answer| {
        let item = batch.get(index_of(ordinality));
        if let Some(slot) = item.and_then(|(index, _)| answers.get_mut(*index)) {
            *slot = answer;
        }
    };
    let touched = touch(connection, &batch).await?;
    let done: HashSet<i64> = touched.iter().map(|(ordinality, _)| *ordinality).collect();
    for (ordinality, ack) in touched {
        set(&batch, ordinality, Ok(Ok(ack)));
    }
    let others = batch.into_iter().zip(1..);
    let others = others.filter(|(_, ordinality)| !done.contains(ordinality));
    let others: Vec<Indexed<_>> = others.map(|(item, _)| item).collect();
    if !others.is_empty() {
        for ordinality in find(connection, &others).await? {
            set(&others, ordinality, Err(Undecided::Conflict));
        }
    }
    Ok(answers)
}

/// An updated node: the ordinality of its item, its TTL, the time, and its health.
type Touched = (i64, i64, DateTime<Utc>, NodeHealth);

async fn touch(
    connection: &mut AsyncPgConnection,
    batch: &[Indexed<'_, Latest<'_>>],
) -> QueryResult<Vec<(i64, HeartbeatAck)>> {
    let journal = Namespace::registry();
    // Every try makes new ids. A retry finds the health already changed, so it journals
    // nothing.
    let ids = column(batch, |_| TransitionId::generate());
    let statement = Touch {
        node_id: column(batch, |item| item.node_id.as_str()),
        owner: column(batch, |item| item.owner.as_str()),
        health_status: column(batch, |item| item.health_status),
        metadata: column(batch, |item| item.metadata),
        transition_id: ids.clone(),
        namespace: column(batch, |_| journal.as_str()),
        entity_id: column(batch, |item| item.node_id.entity_id()),
        entity_type: column(batch, |_| ENTITY_TYPE),
        transition_event: column(batch, |_| HEARTBEAT_EVENT),
        token_id: column(batch, |item| item.token_id),
    };
    let rows: Vec<(Option<Touched>, Option<Position>)> = statement.load(connection).await?;
    let (touched, positions): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let positions = by_id(positions.into_iter().flatten());
    let acks = touched.into_iter().flatten().map(|row| {
        let (ordinality, heartbeat_ttl_ms, last_heartbeat, health_status) = row;
        let transition_id = ids.get(index_of(ordinality));
        let ack = HeartbeatAck {
            heartbeat_ttl_ms,
            last_heartbeat,
            health_status,
            position: transition_id.and_then(|id| positions.get(id)).copied(),
        };
        (ordinality, ack)
    });
    Ok(acks.collect())
}

/// Returns the ordinalities of the nodes that exist.
async fn find(
    connection: &mut AsyncPgConnection,
    batch: &[Indexed<'_, Latest<'_>>],
) -> QueryResult<Vec<i64>> {
    let statement = FindNodes {
        node_id: column(batch, |item| item.node_id.as_str()),
        owner: column(batch, |item| item.owner.as_str()),
    };
    statement.load(connection).await
}
