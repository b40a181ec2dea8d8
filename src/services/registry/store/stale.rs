//! The SQL of the sweeper: counts, finds and marks stale nodes.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult,
    sql_types::{Array, BigInt, Double, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use crate::{
    db::{
        DbError, Query,
        batch::{
            Operation,
            rounds::Indexed,
            statement::{batch_statement, column, statement},
        },
        planner::raw_statement,
    },
    domain::{error::Result, id::TransitionId, namespace::Namespace},
    services::registry::model::{
        ENTITY_TYPE, EXPIRE_EVENT, Fleet, MAX_PAUSE_TTLS, NodeHealth, NodeId, StaleNode,
    },
};

raw_statement! {
/// Counts the nodes of the fleet, and the stale ones among them.
const COUNT_FLEET(Text, Double) = "
    SELECT count(*) AS nodes, count(*) FILTER (WHERE age >= ttl) AS stale
      FROM (SELECT now() - last_heartbeat AS age,
                   heartbeat_ttl_ms * interval '1 millisecond' AS ttl
              FROM node_registrations
                -- The longest TTL is a day.
             WHERE last_heartbeat > now() - interval '2 days'
               AND (health_status <> $1 OR health_before_silence IS NOT NULL)) n
     WHERE age < $2 * ttl";
}

/// Counts the fleet.
pub struct FleetStats;

impl Query for FleetStats {
    type Answer = Fleet;

    async fn run(&self, connection: &mut AsyncPgConnection) -> Result<Result<Fleet>, DbError> {
        let count = diesel::sql_query(COUNT_FLEET)
            .bind::<Text, _>(NodeHealth::Unhealthy)
            .bind::<Double, _>(MAX_PAUSE_TTLS);
        Ok(Ok(count.get_result(connection).await?))
    }
}

/// Reads stale nodes that are not yet marked.
pub struct StaleNodes {
    /// The age of the last heartbeat from which a node is stale, in TTLs.
    pub ttls: f64,
    /// The maximum number of nodes.
    pub at_most: i64,
}

impl Query for StaleNodes {
    type Answer = Vec<StaleNode>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let select = SelectStale {
            alive: vec![NodeHealth::Healthy, NodeHealth::Degraded],
            ttls: self.ttls,
            at_most: self.at_most,
        };
        Ok(Ok(select.load(connection).await?))
    }
}

statement! {
    /// Selects stale nodes, oldest heartbeat first.
    struct SelectStale {
        alive: Vec<NodeHealth>,
        ttls: f64,
        at_most: i64,
    }
    returns (Text, Text, Timestamptz), is_batch: false;
    "SELECT node_id, health_status, last_heartbeat
       FROM node_registrations
      WHERE health_status = ANY (" {alive: Array<Text>} ")
        AND last_heartbeat <= now() - " {ttls: Double}
                              " * heartbeat_ttl_ms * interval '1 millisecond'
      ORDER BY last_heartbeat LIMIT " {at_most: BigInt}
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

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a StaleNode],
    ) -> BoxFuture<'a, Result<Vec<Result<bool>>, DbError>> {
        Box::pin(async move {
            let marked = mark(connection, items).await?;
            let answers = items.iter().map(|item| Ok(marked.contains(&item.node_id)));
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
