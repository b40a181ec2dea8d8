//! Heartbeats: the hottest of all writes.

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
        batch::Operation,
        decide::{Attempted, until_done},
        rounds::{Placed, in_order, rounds},
        statement::{batch_statement, column},
    },
    error::Result,
    id::TransitionId,
    json::JsonObject,
    namespace::{Namespace, Scoped},
    registry::model::{ENTITY_TYPE, HEARTBEAT_EVENT, Heartbeat, NodeHealth, Pulse},
};

batch_statement! {
    /// Touches nodes, and journals those whose health changes. A node whose
    /// health somebody else changes at the same time is left alone, so that the
    /// journal says where it came from.
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
    }
    returns (Text, BigInt, Timestamptz, Text);
    ", touched AS (
        UPDATE node_registrations n
           SET health_status = coalesce(item.health_status, n.health_before_silence, n.health_status),
               health_before_silence = NULL,
               metadata = coalesce(item.metadata, n.metadata),
               last_heartbeat = now(), updated_at = now()
          FROM item CROSS JOIN LATERAL (
               SELECT n.health_status FROM node_registrations n
                WHERE n.node_id = item.node_id AND n.owner = item.owner LIMIT 1) old
         WHERE n.node_id = item.node_id AND n.owner = item.owner
           AND n.health_status = old.health_status
        RETURNING n.node_id, n.heartbeat_ttl_ms, n.last_heartbeat, n.health_status,
                  old.health_status AS from_state, item.transition_id, item.namespace,
                  item.entity_id, item.entity_type, item.transition_event
    ), journaled AS (
        INSERT INTO fsm_transitions
            (id, namespace, entity_id, entity_type, from_state, to_state, transition_event)
        SELECT transition_id, namespace, entity_id, entity_type, from_state, health_status,
               transition_event
          FROM touched WHERE health_status <> from_state
    )
    SELECT node_id, heartbeat_ttl_ms, last_heartbeat, health_status FROM touched"
}

batch_statement! {
    /// Finds which nodes there are.
    struct FindNodes<'a> {
        node_id: &'a str => Text,
        owner: &'a str => Text,
    }
    returns Text;
    " SELECT n.node_id
        FROM item CROSS JOIN LATERAL (
             SELECT n.node_id FROM node_registrations n
              WHERE n.node_id = item.node_id AND n.owner = item.owner LIMIT 1) n"
}

/// Stores heartbeats.
pub struct TouchNodes;

impl Operation for TouchNodes {
    type Item = Scoped<Heartbeat>;
    type Answer = Pulse;
    type Key = uuid::Uuid;

    fn key(item: &Self::Item) -> uuid::Uuid {
        item.node_id.entity_id()
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Pulse>>, DbError>> {
        Box::pin(async move {
            let (distinct, shares) = without_repetitions(items);
            let mut answers = Vec::with_capacity(distinct.len());
            for round in rounds(&distinct, |item| [item.node_id.entity_id()]) {
                let (places, round): (Vec<_>, Vec<_>) = round.into_iter().unzip();
                let round = until_done(connection, &round, |connection, items| {
                    Box::pin(attempt(connection, items))
                });
                answers.extend(places.into_iter().zip(round.await?));
            }
            let answers = in_order(answers);
            let shares = shares.into_iter().filter_map(|share| answers.get(share));
            Ok(shares.cloned().collect())
        })
    }
}

/// The heartbeats that have something to say after those before them, and for
/// each of all of them the place of the one among these that speaks for it. So a
/// node that sends far too many costs one write for each batch.
fn without_repetitions<'a>(
    items: &[&'a Scoped<Heartbeat>],
) -> (Vec<&'a Scoped<Heartbeat>>, Vec<usize>) {
    let mut distinct: Vec<&Scoped<Heartbeat>> = Vec::with_capacity(items.len());
    let mut latest: HashMap<(&str, &str), usize> = HashMap::with_capacity(items.len());
    let shares = items.iter().map(|item| {
        let key = (item.namespace.as_str(), item.node_id.as_str());
        let earlier = latest.get(&key).copied();
        let earlier = earlier.filter(|place| {
            let earlier = distinct.get(*place);
            earlier.is_some_and(|earlier| item.repeats(earlier))
        });
        earlier.unwrap_or_else(|| {
            distinct.push(item);
            latest.insert(key, distinct.len() - 1);
            distinct.len() - 1
        })
    });
    let shares = shares.collect();
    (distinct, shares)
}

/// Touches nodes, each of which occurs once. Answers `None` for those whose
/// health somebody else changed at the same time.
async fn attempt(
    connection: &mut AsyncPgConnection,
    items: &[&Scoped<Heartbeat>],
) -> Result<Attempted<Pulse>, DbError> {
    let mut batch: Vec<Placed<_>> = items.iter().copied().enumerate().collect();
    // Everybody locks in the same order, so nobody waits in a circle.
    batch.sort_unstable_by_key(|(_, item)| item.node_id.as_str());
    let touched = touch(connection, &batch).await?;
    let is_missing = |item: &Heartbeat| !touched.contains_key(item.node_id.as_str());
    batch.retain(|(_, item)| is_missing(item));
    let overtaken = match batch.is_empty() {
        true => HashSet::new(),
        false => find(connection, &batch).await?,
    };
    let answers = items.iter().map(|item| {
        let name = item.node_id.as_str();
        match touched.get(name) {
            Some(pulse) => Some(Ok(*pulse)),
            None if overtaken.contains(name) => None,
            None => Some(Err(no_node(&item.node_id))),
        }
    });
    Ok(answers.collect())
}

async fn touch(
    connection: &mut AsyncPgConnection,
    batch: &[Placed<'_, Scoped<Heartbeat>>],
) -> QueryResult<HashMap<String, Pulse>> {
    let journal = Namespace::registry();
    let statement = Touch {
        node_id: column(batch, |item| item.node_id.as_str()),
        owner: column(batch, |item| item.namespace.as_str()),
        health_status: column(batch, |item| item.health_status),
        metadata: column(batch, |item| item.metadata.as_ref()),
        // New ones for every try: what was journaled by one whose answer was
        // lost is no change any more.
        transition_id: column(batch, |_| TransitionId::generate()),
        namespace: column(batch, |_| journal.as_str()),
        entity_id: column(batch, |item| item.node_id.entity_id()),
        entity_type: column(batch, |_| ENTITY_TYPE),
        transition_event: column(batch, |_| HEARTBEAT_EVENT),
        ..Touch::default()
    };
    let rows: Vec<(String, i64, DateTime<Utc>, NodeHealth)> = statement.load(connection).await?;
    let rows = rows.into_iter();
    let pulses = rows.map(
        |(node_id, heartbeat_ttl_ms, last_heartbeat, health_status)| {
            let pulse = Pulse {
                heartbeat_ttl_ms,
                last_heartbeat,
                health_status,
            };
            (node_id, pulse)
        },
    );
    Ok(pulses.collect())
}

async fn find(
    connection: &mut AsyncPgConnection,
    batch: &[Placed<'_, Scoped<Heartbeat>>],
) -> QueryResult<HashSet<String>> {
    let statement = FindNodes {
        node_id: column(batch, |item| item.node_id.as_str()),
        owner: column(batch, |item| item.namespace.as_str()),
        ..FindNodes::default()
    };
    let found: Vec<String> = statement.load(connection).await?;
    Ok(found.into_iter().collect())
}
