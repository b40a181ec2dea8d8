//! The SQL of the sweeper: counts, finds and marks stale nodes.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult,
    sql_types::{BigInt, Double, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use crate::{
    db::{
        DbError, Query,
        batch::{
            Answers, Operation,
            rounds::Indexed,
            statement::{batch_statement, column},
        },
        planner::raw_statement,
    },
    domain::{error::Result, id::TransitionId, namespace::Namespace},
    services::registry::model::{
        ENTITY_TYPE, EXPIRE_EVENT, MAX_PAUSE_TTLS, MIN_FLEET_NODES, NodeHealth, NodeId,
        PausedFleets, StaleNode,
    },
};

/// Selects the fleets for which the sweeper pauses, see [`PausedFleets`]. `$1` to `$3` are
/// UNHEALTHY, [`MAX_PAUSE_TTLS`] and [`MIN_FLEET_NODES`].
macro_rules! paused_fleets {
    () => {
        "SELECT owner, node_type, count(*) AS nodes
           FROM (SELECT owner, node_type, now() - last_heartbeat AS age,
                        heartbeat_ttl_ms * interval '1 millisecond' AS ttl
                   FROM node_registrations
                     -- The longest TTL is a day.
                  WHERE last_heartbeat > now() - interval '2 days'
                    AND (health_status <> $1 OR health_before_silence IS NOT NULL)) counted
          WHERE age < $2 * ttl
          GROUP BY owner, node_type
         HAVING count(*) >= $3 AND 2 * count(*) FILTER (WHERE age >= ttl) > count(*)"
    };
}

raw_statement! {
/// Counts the paused fleets, and names the largest.
const COUNT_PAUSED_FLEETS(Text, Double, BigInt) = concat!(
    "SELECT count(*) AS count, (array_agg(owner ORDER BY nodes DESC, owner, node_type))[1] AS owner,
            (array_agg(node_type ORDER BY nodes DESC, owner, node_type))[1] AS node_type
       FROM (", paused_fleets!(), ") paused");
}

raw_statement! {
/// Selects stale nodes: those that may be marked first, the owners in turns, and for each
/// owner the oldest heartbeat first. Only stale nodes make it look for paused fleets.
const SELECT_STALE(Text, Double, BigInt, BigInt) = concat!(
    "SELECT node_id, health_status, last_heartbeat, is_protected
       FROM (SELECT *, row_number() OVER (PARTITION BY owner, is_protected
                                          ORDER BY last_heartbeat) AS turn
               FROM (SELECT node_id, owner, health_status, last_heartbeat,
                            last_heartbeat > now() - $2 * heartbeat_ttl_ms * interval '1 millisecond'
                            AND (owner, node_type) IN (SELECT owner, node_type FROM (",
                                paused_fleets!(), ") paused) AS is_protected
                       FROM node_registrations
                      WHERE health_status <> $1
                        AND last_heartbeat <= now() - heartbeat_ttl_ms * interval '1 millisecond'
                    ) stale
            ) in_turns
      ORDER BY is_protected, turn, last_heartbeat
      LIMIT $4");
}

/// Counts the fleets for which the sweeper pauses.
pub struct CountPausedFleets;

impl Query for CountPausedFleets {
    type Answer = PausedFleets;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let count = diesel::sql_query(COUNT_PAUSED_FLEETS)
            .bind::<Text, _>(NodeHealth::Unhealthy)
            .bind::<Double, _>(MAX_PAUSE_TTLS)
            .bind::<BigInt, _>(MIN_FLEET_NODES);
        Ok(Ok(count.get_result(connection).await?))
    }
}

/// Reads stale nodes that are not yet marked, those that may be marked first.
pub struct StaleNodes {
    /// The maximum number of nodes.
    pub at_most: i64,
}

impl Query for StaleNodes {
    type Answer = Vec<StaleNode>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let select = diesel::sql_query(SELECT_STALE)
            .bind::<Text, _>(NodeHealth::Unhealthy)
            .bind::<Double, _>(MAX_PAUSE_TTLS)
            .bind::<BigInt, _>(MIN_FLEET_NODES)
            .bind::<BigInt, _>(self.at_most);
        Ok(Ok(select.load(connection).await?))
    }
}

batch_statement! {
    /// Marks nodes, and journals it, except for nodes with a heartbeat since they were read,
    /// and nodes that another replica marked.
    struct Mark<'a> {
        node_id: &'a str => Text,
        health_status: NodeHealth => Text,
        last_heartbeat: DateTime<Utc> => Timestamptz,
        to_state: NodeHealth => Text,
        transition_id: TransitionId => Uuid,
        namespace: &'a str => Text,
        entity_id: uuid::Uuid => Uuid,
        entity_type: &'a str => Text,
        transition_event: &'a str => Text,
    }
    returns Text;
    ", marked AS (
        UPDATE node_registrations n
           SET health_status = item.to_state, health_before_silence = item.health_status,
               updated_at = now()
          FROM item
         WHERE n.node_id = item.node_id AND n.health_status = item.health_status
           AND n.last_heartbeat = item.last_heartbeat
        RETURNING n.node_id, n.owner, item.transition_id, item.namespace, item.entity_id, item.entity_type,
                  item.health_status AS from_state, item.to_state, item.transition_event
    ), journaled AS (
        INSERT INTO fsm_transitions
            (id, namespace, entity_id, entity_type, from_state, to_state, transition_event,
             transition_data)
        SELECT transition_id, namespace, entity_id, entity_type, from_state, to_state,
               transition_event, jsonb_build_object('node_id', node_id, 'owner', owner)
          FROM marked
    )
    SELECT node_id FROM marked"
}

/// Marks stale nodes as UNHEALTHY. The answer is whether the node was marked.
pub struct MarkStale;

impl Operation for MarkStale {
    const NAME: &'static str = "MarkStale";

    type Item = StaleNode;
    type Answer = bool;
    type Key = String;

    fn key(item: &StaleNode) -> String {
        item.node_id.clone()
    }

    /// The service itself marks nodes.
    fn tenant(_item: &StaleNode) -> &str {
        ""
    }

    fn journal(_item: &StaleNode) -> Option<&str> {
        Some(Namespace::registry_name())
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a StaleNode],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>> {
        Box::pin(async move {
            let marked = mark(connection, items).await?;
            let answers = items
                .iter()
                .map(|item| Some(Ok(marked.contains(&item.node_id))));
            Ok(answers.collect())
        })
    }
}

async fn mark(
    connection: &mut AsyncPgConnection,
    items: &[&StaleNode],
) -> QueryResult<HashSet<String>> {
    let mut batch: Vec<Indexed<_>> = items.iter().copied().enumerate().collect();
    // The lock order, see `rounds::in_lock_order`.
    batch.sort_unstable_by_key(|(_, item)| item.node_id.as_str());
    let journal = Namespace::registry();
    let statement = Mark {
        node_id: column(&batch, |item| item.node_id.as_str()),
        health_status: column(&batch, |item| item.health_status),
        last_heartbeat: column(&batch, |item| item.last_heartbeat),
        to_state: column(&batch, |_| NodeHealth::Unhealthy),
        transition_id: column(&batch, |_| TransitionId::generate()),
        namespace: column(&batch, |_| journal.as_str()),
        entity_id: column(&batch, |item| NodeId::new(item.node_id.clone()).entity_id()),
        entity_type: column(&batch, |_| ENTITY_TYPE),
        transition_event: column(&batch, |_| EXPIRE_EVENT),
    };
    let marked: Vec<String> = statement.load(connection).await?;
    Ok(marked.into_iter().collect())
}
