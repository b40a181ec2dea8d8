//! Registering nodes.

use std::{collections::HashMap, ops::ControlFlow};

use diesel::{
    prelude::*,
    sql_types::{BigInt, Bool, Jsonb, Nullable, Text, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::{NodeSql, node_columns};
use crate::{
    db::{
        DbError,
        batch::{
            Answers, Operation,
            optimistic::{Outcomes, Undecided, retry_conflicts},
            rounds::{in_order, rounds},
            statement::batch_statement,
        },
        journal::{PositionSql, Positions, by_id, left_last_transition},
        planner::{in_set, left_lateral, left_lookup},
    },
    domain::{
        error::{Error, Result},
        id::{TokenId, TransitionId},
        json::JsonObject,
        namespace::{Namespace, Scoped},
        position::Position,
        write_outcome::{Journaled, WriteOutcome},
    },
    services::registry::model::{ENTITY_TYPE, NewNode, Node, NodeHealth, REGISTER_EVENT},
};

batch_statement! {
    /// Reads nodes of all owners. Also reads whether the journal has the item's id, which the
    /// service makes: then an earlier try of this very call stored the node, and its answer
    /// was lost. `is_first` tells whether the try created the node. Otherwise reads the position of
    /// the node's last row of the journal, which has its health.
    struct ReadNodes<'a> {
        node_id: &'a str => Text,
        transition_id: TransitionId => Uuid,
        namespace: &'a str => Text,
        entity_id: uuid::Uuid => Uuid,
        entity_type: &'a str => Text,
    }
    returns (Text, Nullable<NodeSql>, Nullable<Bool>, Nullable<PositionSql>);
    concat!(
        " SELECT item.node_id, ", node_columns!(), ", t.is_first, coalesce(t.id, last.id),
                 coalesce(t.xid, last.xid), coalesce(t.seq, last.seq)
            FROM item",
        left_lookup!("node_registrations", "n", "n.node_id = item.node_id"),
        left_lateral!("t",
            "SELECT t.id, t.xid, t.seq, t.from_state IS NULL AS is_first FROM fsm_transitions t
              WHERE t.id = item.transition_id LIMIT 1"),
        left_last_transition!("last", "n.node_id IS NOT NULL AND t.id IS NULL")
    )
}

batch_statement! {
    /// Inserts new nodes, and replaces existing ones, except for nodes whose health or owner
    /// changed since it was read. Journals new nodes and changes of health. Returns the written
    /// nodes, and the positions of the rows of the journal.
    struct WriteNodes<'a> {
        node_id: &'a str => Text,
        owner: &'a str => Text,
        node_type: &'a str => Text,
        node_version: &'a str => Text,
        capabilities: &'a JsonObject => Jsonb,
        endpoints: &'a JsonObject => Jsonb,
        metadata: &'a JsonObject => Jsonb,
        health_status: NodeHealth => Text,
        heartbeat_ttl_ms: i64 => BigInt,
        from_state: Option<NodeHealth> => Nullable<Text>,
        transition_id: TransitionId => Uuid,
        namespace: &'a str => Text,
        entity_id: uuid::Uuid => Uuid,
        entity_type: &'a str => Text,
        transition_event: &'a str => Text,
        token_id: Option<TokenId> => Nullable<Uuid>,
    }
    returns (Nullable<NodeSql>, Nullable<PositionSql>);
    concat!(
        ", inserted AS (
            INSERT INTO node_registrations AS n
                (node_id, owner, node_type, node_version, capabilities, endpoints, metadata,
                 health_status, heartbeat_ttl_ms)
            SELECT node_id, owner, node_type, node_version, capabilities, endpoints, metadata,
                   health_status, heartbeat_ttl_ms
              FROM item
             WHERE from_state IS NULL
             ORDER BY ordinality
                ON CONFLICT ON CONSTRAINT node_registrations_pkey DO NOTHING
            RETURNING ", node_columns!(), "
        ), updated AS (
            UPDATE node_registrations n
               SET node_type = item.node_type, node_version = item.node_version,
                   capabilities = item.capabilities, endpoints = item.endpoints,
                   metadata = item.metadata, health_status = item.health_status,
                   heartbeat_ttl_ms = item.heartbeat_ttl_ms, health_before_silence = NULL,
                   last_heartbeat = now(), registered_at = now(), updated_at = now()
              FROM item
             WHERE n.node_id = item.node_id AND n.owner = item.owner
               AND n.health_status = item.from_state
            RETURNING ", node_columns!(), "
        ), written AS (
            SELECT * FROM inserted UNION ALL SELECT * FROM updated
        ), journaled AS (
            INSERT INTO fsm_transitions
                (id, namespace, entity_id, entity_type, from_state, to_state, transition_event,
                 transition_data, token_id)
            SELECT transition_id, namespace, entity_id, entity_type, from_state, health_status,
                   transition_event, jsonb_build_object('node_id', node_id, 'owner', owner), token_id
              FROM item
             WHERE from_state IS DISTINCT FROM health_status
               AND ", in_set!("node_id", "SELECT node_id FROM written"), "
            RETURNING id, xid, seq
        )
        SELECT ", node_columns!(), ", NULL::uuid, NULL::xid8, NULL::bigint FROM written n
         UNION ALL
        -- No node: only the NULLs of its columns.
        SELECT ", node_columns!(), ", j.id, j.xid, j.seq
          FROM journaled j LEFT JOIN (SELECT * FROM written LIMIT 0) n ON true"
    )
}

/// A node, with the position of the row of the journal that has its health.
type Registered = WriteOutcome<Journaled<Node>>;

/// Registers nodes. Registering an existing node replaces it.
pub struct RegisterNodes;

impl Operation for RegisterNodes {
    const NAME: &'static str = "RegisterNodes";

    type Item = Scoped<NewNode>;
    type Answer = Registered;
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
        item.capabilities.wire_len() + item.endpoints.wire_len() + item.metadata.wire_len()
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(items.len());
            for round in rounds(items, |item| [item.node_id.entity_id()]) {
                let (positions, round): (Vec<_>, Vec<_>) = round.into_iter().unzip();
                let round = retry_conflicts(connection, &round, |connection, items| {
                    Box::pin(attempt(connection, items))
                });
                answers.extend(positions.into_iter().zip(round.await?));
            }
            Ok(in_order(answers))
        })
    }
}

/// The decision about an item: an answer without a write, or a write over a node of this
/// health, or of a new node if it is `None`.
type Decision = ControlFlow<Result<Registered>, Option<Previous>>;

/// The health of a node, and the position of the row of the journal that has it.
type Previous = (NodeHealth, Option<Position>);

/// The node with a name; if an earlier try of this very call stored it, whether the try created it;
/// and the position of its row of the journal.
type Found = (Option<Node>, Option<bool>, Option<Position>);

fn decide(item: &Scoped<NewNode>, found: Found) -> Decision {
    match found {
        (Some(node), _, _) if node.owner != item.namespace.as_str() => {
            Decision::Break(Err(Error::NodeOwned(node.node_id)))
        }
        (Some(row), Some(created), position) => {
            let row = Journaled { row, position };
            Decision::Break(Ok(WriteOutcome { row, created }))
        }
        // An earlier try stored the node, and it has been deleted since.
        (None, Some(_), _) => Decision::Break(Err(Error::Contended)),
        (node, None, position) => {
            Decision::Continue(node.map(|node| (node.health_status, position)))
        }
    }
}

/// Reads, decides and writes distinct nodes. A concurrent change of a node is a write conflict.
async fn attempt(
    connection: &mut AsyncPgConnection,
    items: &[&Scoped<NewNode>],
) -> Result<Outcomes<Registered>, DbError> {
    let mut found = read(connection, items).await?;
    let decisions = items.iter().map(|item| {
        let found = found.remove(item.node_id.as_str());
        decide(item, found.unwrap_or_default())
    });
    let decisions: Vec<_> = decisions.collect();
    let (mut written, positions) = write(connection, items, &decisions).await?;
    let answers = items.iter().zip(decisions);
    let answers = answers.map(|(item, decision)| match decision {
        Decision::Break(answer) => Ok(answer),
        Decision::Continue(previous) => {
            let row = written.remove(item.node_id.as_str());
            let row = row.ok_or(Undecided::Conflict)?;
            let journaled = positions.get(&item.transition_id).copied();
            let position = journaled.or(previous.and_then(|(_, position)| position));
            let row = Journaled { row, position };
            let created = previous.is_none();
            Ok(Ok(WriteOutcome { row, created }))
        }
    });
    Ok(answers.collect())
}

async fn read(
    connection: &mut AsyncPgConnection,
    items: &[&Scoped<NewNode>],
) -> QueryResult<HashMap<String, Found>> {
    let journal = Namespace::registry();
    let read = ReadNodes {
        node_id: items.iter().map(|item| item.node_id.as_str()).collect(),
        transition_id: items.iter().map(|item| item.transition_id).collect(),
        namespace: items.iter().map(|_| journal.as_str()).collect(),
        entity_id: items.iter().map(|item| item.node_id.entity_id()).collect(),
        entity_type: items.iter().map(|_| ENTITY_TYPE).collect(),
    };
    type Row = (String, Option<Node>, Option<bool>, Option<Position>);
    let rows: Vec<Row> = read.load(connection).await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|(name, node, is_first, position)| (name, (node, is_first, position)))
        .collect())
}

async fn write(
    connection: &mut AsyncPgConnection,
    items: &[&Scoped<NewNode>],
    decisions: &[Decision],
) -> QueryResult<(HashMap<String, Node>, Positions)> {
    let decided = items.iter().zip(decisions);
    let mut rows: Vec<_> = decided
        .filter_map(|(item, decision)| match decision {
            Decision::Continue(previous) => Some((*item, previous.map(|(health, _)| health))),
            Decision::Break(_) => None,
        })
        .collect();
    if rows.is_empty() {
        return Ok((HashMap::new(), Positions::new()));
    }
    // The lock order, see `rounds::in_lock_order`.
    rows.sort_unstable_by_key(|(item, _)| item.node_id.as_str());
    let journal = Namespace::registry();
    let mut write = WriteNodes::default();
    for (item, from) in rows {
        write.node_id.push(item.node_id.as_str());
        write.owner.push(item.namespace.as_str());
        write.node_type.push(&item.node_type);
        write.node_version.push(&item.node_version);
        write.capabilities.push(&item.capabilities);
        write.endpoints.push(&item.endpoints);
        write.metadata.push(&item.metadata);
        write.health_status.push(item.health_status);
        write.heartbeat_ttl_ms.push(item.heartbeat_ttl_ms);
        write.from_state.push(from);
        write.transition_id.push(item.transition_id);
        write.namespace.push(journal.as_str());
        write.entity_id.push(item.node_id.entity_id());
        write.entity_type.push(ENTITY_TYPE);
        write.transition_event.push(REGISTER_EVENT);
        write.token_id.push(item.token_id);
    }
    let rows: Vec<(Option<Node>, Option<Position>)> = write.load(connection).await?;
    let (written, positions): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let written = written.into_iter().flatten();
    let written = written.map(|node| (node.node_id.clone(), node)).collect();
    Ok((written, by_id(positions.into_iter().flatten())))
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::services::registry::model::NodeId;

    fn wanted() -> Scoped<NewNode> {
        let content = NewNode {
            node_id: NodeId::new("a".to_owned()),
            transition_id: TransitionId::generate(),
            node_type: "reducer".to_owned(),
            node_version: "1".to_owned(),
            capabilities: JsonObject::default(),
            endpoints: JsonObject::default(),
            metadata: JsonObject::default(),
            health_status: NodeHealth::Healthy,
            heartbeat_ttl_ms: 1000,
        };
        Scoped {
            namespace: Namespace::registry(),
            token_id: None,
            deadline: None,
            content,
        }
    }

    fn stored(owner: &str) -> Node {
        let now = Utc::now();
        Node {
            node_id: "a".to_owned(),
            owner: owner.to_owned(),
            node_type: "reducer".to_owned(),
            node_version: "1".to_owned(),
            capabilities: JsonObject::default(),
            endpoints: JsonObject::default(),
            metadata: JsonObject::default(),
            health_status: NodeHealth::Degraded,
            heartbeat_ttl_ms: 1000,
            last_heartbeat: now,
            registered_at: now,
            created_at: now,
            updated_at: now,
        }
    }

    #[test]
    fn a_retry_of_a_stored_registration_is_answered_without_a_write() {
        let own = Namespace::registry();
        for created in [true, false] {
            let found = (Some(stored(own.as_str())), Some(created), None);
            match decide(&wanted(), found) {
                ControlFlow::Break(Ok(outcome)) => assert_eq!(outcome.created, created),
                other => panic!("{other:?}"),
            }
        }
        let gone = decide(&wanted(), (None, Some(true), None));
        assert!(matches!(gone, ControlFlow::Break(Err(Error::Contended))));
    }

    #[test]
    fn new_nodes_and_nodes_of_the_same_owner_are_written() {
        let own = Namespace::registry();
        let decide = |node| decide(&wanted(), (node, None, None));
        assert!(matches!(decide(None), ControlFlow::Continue(None)));
        assert!(matches!(
            decide(Some(stored(own.as_str()))),
            ControlFlow::Continue(Some((NodeHealth::Degraded, None)))
        ));
        assert!(matches!(
            decide(Some(stored("other"))),
            ControlFlow::Break(Err(Error::NodeOwned(_)))
        ));
    }
}
