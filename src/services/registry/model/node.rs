//! Nodes: the stored row, and the requests to register, read, list, discover and deregister.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use uuid::Uuid;

use crate::{
    db::schema::node_registrations,
    domain::text_enum::text_enum,
    domain::{
        id::TransitionId,
        json::JsonObject,
        page::{NamedTimePosition, Page, PageRequest, PageRow, ROW_BYTES},
    },
};

text_enum! {
    /// The health that a node reports, or that the sweeper sets.
    pub enum NodeHealth {
        /// Works.
        Healthy = "HEALTHY",
        /// Works with reduced capacity or quality.
        Degraded = "DEGRADED",
        /// Does not work, or is stale.
        Unhealthy = "UNHEALTHY",
    }
}

/// The UUID namespace of the UUIDv5 that identifies a node in the journal. The contract
/// promises it, and stored rows depend on it: it must never change.
const ENTITY_NAMESPACE: Uuid = Uuid::from_u128(0x3632_ca21_18e5_5816_b0ac_f0aa_fc49_b03c);

/// The name of a node, with the id that it has in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeId {
    name: String,
    entity_id: Uuid,
}

impl NodeId {
    /// Makes the id of the node with this name.
    #[must_use]
    pub fn new(name: String) -> Self {
        let entity_id = Uuid::new_v5(&ENTITY_NAMESPACE, name.as_bytes());
        NodeId { name, entity_id }
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Returns the name, and drops the id.
    #[must_use]
    pub fn into_name(self) -> String {
        self.name
    }

    /// Returns the id in the journal: `fsm_transitions.entity_id`.
    #[must_use]
    pub fn entity_id(&self) -> Uuid {
        self.entity_id
    }
}

/// The request to register a node.
#[derive(Debug)]
pub struct NewNode {
    /// The name of the node.
    pub node_id: NodeId,
    /// The id of the move in the journal, which is unused if the health does not change.
    pub transition_id: TransitionId,
    /// The type of the node.
    pub node_type: String,
    /// The version of the node's software.
    pub node_version: String,
    /// The capabilities of the node, by which others find it.
    pub capabilities: JsonObject,
    /// The addresses of the node.
    pub endpoints: JsonObject,
    /// Further properties of the node.
    pub metadata: JsonObject,
    /// The health that the node reports.
    pub health_status: NodeHealth,
    /// The time after a heartbeat until the node is stale, in milliseconds.
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

/// Nodes are listed by name.
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

/// The request to deregister a node.
#[derive(Debug)]
pub struct Deregistration {
    /// The id of the move in the journal.
    pub transition_id: TransitionId,
    /// The node.
    pub node_id: NodeId,
    /// Whether to answer `false`, and not with an error, if the node is missing.
    pub allow_missing: bool,
}

/// The request to read a node.
#[derive(Debug)]
pub struct NodeQuery {
    /// The node.
    pub node_id: NodeId,
}

/// The filter of a list of nodes.
#[derive(Debug)]
pub struct NodeFilter {
    /// Selects nodes of this type.
    pub node_type: Option<String>,
    /// Selects nodes with these healths; any health if empty.
    pub health_statuses: Vec<NodeHealth>,
    /// Selects nodes whose capabilities contain this document; all contain the empty one.
    pub capabilities: JsonObject,
    /// Selects nodes with a heartbeat within this many microseconds before now().
    pub heartbeat_within_micros: Option<i64>,
    /// Selects nodes without a heartbeat for at least this many microseconds.
    pub heartbeat_older_than_micros: Option<i64>,
    /// Selects nodes that belong to this namespace.
    pub owner: Option<String>,
    /// The requested page.
    pub page: PageRequest<String>,
}

/// The request to discover nodes that are alive and HEALTHY.
#[derive(Debug)]
pub struct Discovery {
    /// Selects nodes of this type.
    pub node_type: String,
    /// Selects nodes that belong to this namespace.
    pub owner: Option<String>,
    /// Selects nodes whose capabilities contain this document; all contain the empty one.
    pub capabilities: JsonObject,
    /// The requested page.
    pub page: PageRequest<NamedTimePosition>,
}

impl Discovery {
    /// Whether the request asks for the first nodes of a type, as most callers do. Such requests
    /// share round trips and rows.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.owner.is_none() && self.capabilities.is_empty() && self.page.after.is_none()
    }
}

/// A node that is alive and HEALTHY. These are listed by heartbeat, the latest one first.
#[derive(Debug)]
pub struct LiveNode(pub Node);

impl PageRow for LiveNode {
    type Position = NamedTimePosition;

    fn position(&self) -> NamedTimePosition {
        (self.0.last_heartbeat, self.0.node_id.clone())
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

/// The first nodes of a type, for all requests that ask for as many.
#[derive(Debug, Clone, Default)]
pub struct Discovered {
    /// The nodes, the latest heartbeat first.
    pub nodes: Vec<Node>,
    /// Whether more nodes are alive than these.
    pub has_more: bool,
}

impl Discovered {
    /// Returns the nodes as the page that a request asked for.
    #[must_use]
    pub fn into_page(self, page: &PageRequest<NamedTimePosition>) -> Page<LiveNode> {
        let rows: Vec<LiveNode> = self.nodes.into_iter().map(LiveNode).collect();
        let last = rows.last().filter(|_| self.has_more);
        let next_page_token = last.map(|last| page.token_after(last.position()));
        Page {
            next_page_token: next_page_token.unwrap_or_default(),
            rows,
            is_cut: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entity_id_is_the_uuid5_that_the_contract_promises() {
        // The result of Python's uuid.uuid5.
        let node = NodeId::new("reducer-1".to_owned());
        assert_eq!(
            node.entity_id().to_string(),
            "8fd47191-43d2-5122-aaac-792fb09307c7"
        );
    }
}
