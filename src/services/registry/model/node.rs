//! Nodes: to register, as they are stored, to find, to deregister.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use uuid::Uuid;

use crate::{
    db::schema::node_registrations,
    domain::text_enum::text_enum,
    domain::{
        id::TransitionId,
        json::JsonObject,
        page::{PageRequest, PageRow, ROW_BYTES},
    },
};

text_enum! {
    /// How a node is.
    pub enum NodeHealth {
        /// It works.
        Healthy = "HEALTHY",
        /// It works, but not well.
        Degraded = "DEGRADED",
        /// It does not work, or was silent for too long.
        Unhealthy = "UNHEALTHY",
    }
}

/// The name space of the UUIDv5 under which the journal has a node. Never to be
/// changed: the journal is full of it.
const ENTITY_NAMESPACE: Uuid = Uuid::from_u128(0x3632_ca21_18e5_5816_b0ac_f0aa_fc49_b03c);

/// A node's own name, with the id that the journal knows it by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeId {
    name: String,
    entity_id: Uuid,
}

impl NodeId {
    /// Takes a name.
    #[must_use]
    pub fn new(name: String) -> Self {
        let entity_id = Uuid::new_v5(&ENTITY_NAMESPACE, name.as_bytes());
        NodeId { name, entity_id }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The name, where nothing else is needed any more.
    #[must_use]
    pub fn into_name(self) -> String {
        self.name
    }

    /// The id that the journal knows the node by: `fsm_transitions.entity_id`.
    #[must_use]
    pub fn entity_id(&self) -> Uuid {
        self.entity_id
    }
}

/// A node as it describes itself.
#[derive(Debug)]
pub struct NewNode {
    /// Its name.
    pub node_id: NodeId,
    /// The id of the journal's row, if there is to be one.
    pub transition_id: TransitionId,
    /// What kind it is.
    pub node_type: String,
    /// The version of the software that it runs.
    pub node_version: String,
    /// What it can do.
    pub capabilities: JsonObject,
    /// Where it can be reached.
    pub endpoints: JsonObject,
    /// Whatever else it says of itself.
    pub metadata: JsonObject,
    /// How it is.
    pub health_status: NodeHealth,
    /// For how long it counts as alive, in milliseconds.
    pub heartbeat_ttl_ms: i64,
}

/// A row of node_registrations.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = node_registrations)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct Node {
    pub node_id: String,
    pub owner: String,
    pub node_type: String,
    pub node_version: String,
    pub capabilities: JsonObject,
    pub endpoints: JsonObject,
    pub metadata: JsonObject,
    pub health_status: NodeHealth,
    pub heartbeat_ttl_ms: i64,
    pub last_heartbeat: DateTime<Utc>,
    pub registered_at: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Nodes are listed by their names.
impl PageRow for Node {
    type Position = String;

    fn position(&self) -> String {
        self.node_id.clone()
    }

    fn size(&self) -> usize {
        let texts = [
            &self.node_id,
            &self.owner,
            &self.node_type,
            &self.node_version,
        ];
        let documents = [&self.capabilities, &self.endpoints, &self.metadata];
        ROW_BYTES
            + texts.map(String::len).iter().sum::<usize>()
            + documents.map(JsonObject::wire_len).iter().sum::<usize>()
    }
}

/// A node to deregister.
#[derive(Debug)]
pub struct Deregistration {
    /// The id of its row in the journal.
    pub transition_id: TransitionId,
    /// Which.
    pub node_id: NodeId,
    /// Whether it is fine if it is not there.
    pub allow_missing: bool,
}

/// A node to read.
#[derive(Debug)]
pub struct NodeQuery {
    /// Which.
    pub node_id: NodeId,
}

/// Which nodes to list.
#[derive(Debug)]
pub struct NodeFilter {
    /// Of this type.
    pub node_type: Option<String>,
    /// In one of these; any if empty.
    pub health_statuses: Vec<NodeHealth>,
    /// With capabilities that contain this; anything contains the empty object.
    pub capabilities: JsonObject,
    /// Heard of within this many microseconds before the database's present.
    pub heartbeat_within_micros: Option<i64>,
    /// Silent for at least this many microseconds.
    pub heartbeat_older_than_micros: Option<i64>,
    /// That belong to this namespace.
    pub owner: Option<String>,
    /// Which page.
    pub page: PageRequest<String>,
}

/// Which nodes to find that are of use right now.
#[derive(Debug)]
pub struct Discovery {
    /// Of this type.
    pub node_type: String,
    /// At most so many.
    pub limit: i64,
}

/// The nodes that are of use.
#[derive(Debug, Clone, Default)]
pub struct Discovered {
    /// Those that were heard of last first.
    pub nodes: Vec<Node>,
    /// Whether there are more.
    pub has_more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entity_id_is_the_one_that_the_contract_promises() {
        // What Python's uuid.uuid5 makes of it.
        let node = NodeId::new("reducer-1".to_owned());
        assert_eq!(
            node.entity_id().to_string(),
            "8fd47191-43d2-5122-aaac-792fb09307c7"
        );
    }
}
