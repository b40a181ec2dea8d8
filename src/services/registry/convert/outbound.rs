//! Converts domain types to responses, which cannot fail.

use crate::{
    domain::{
        namespace::Namespace,
        position::Position,
        time,
        write_outcome::{Journaled, WriteOutcome},
    },
    proto::v1,
    services::{
        convert::responses,
        registry::model::{HeartbeatAck, LiveNode, Node, NodeId, next_heartbeat_ms},
    },
};

impl From<Node> for v1::Node {
    fn from(row: Node) -> Self {
        let node_id = NodeId::new(row.node_id);
        v1::Node {
            entity_id: node_id.entity_id().to_string(),
            node_id: node_id.into_name(),
            owner: row.owner,
            node_type: row.node_type,
            node_version: row.node_version,
            capabilities: Some(row.capabilities.into()),
            endpoints: Some(row.endpoints.into()),
            metadata: Some(row.metadata.into()),
            health_status: v1::NodeHealth::from(row.health_status).into(),
            heartbeat_ttl: Some(time::from_millis(row.heartbeat_ttl_ms)),
            last_heartbeat: Some(time::to_proto(row.last_heartbeat)),
            registered_at: Some(time::to_proto(row.registered_at)),
            created_at: Some(time::to_proto(row.created_at)),
            updated_at: Some(time::to_proto(row.updated_at)),
            // The codec leaves out what does not fit.
            omitted_fields: Vec::new(),
        }
    }
}

impl From<WriteOutcome<Journaled<Node>>> for v1::RegisterNodeResponse {
    fn from(outcome: WriteOutcome<Journaled<Node>>) -> Self {
        let Journaled { row, position } = outcome.row;
        let next = next_heartbeat_ms(row.heartbeat_ttl_ms);
        v1::RegisterNodeResponse {
            node: Some(row.into()),
            created: outcome.created,
            next_heartbeat_in: Some(time::from_millis(next)),
            position: text_of(position),
        }
    }
}

impl From<HeartbeatAck> for v1::HeartbeatResponse {
    fn from(ack: HeartbeatAck) -> Self {
        let next = next_heartbeat_ms(ack.heartbeat_ttl_ms);
        v1::HeartbeatResponse {
            next_heartbeat_in: Some(time::from_millis(next)),
            last_heartbeat: Some(time::to_proto(ack.last_heartbeat)),
            health_status: v1::NodeHealth::from(ack.health_status).into(),
            position: text_of(ack.position),
        }
    }
}

/// Returns the text of a position in the registry's journal; empty if there is none.
fn text_of(position: Option<Position>) -> String {
    Position::text_of(position, Namespace::registry().as_str())
}

impl From<LiveNode> for v1::Node {
    fn from(node: LiveNode) -> Self {
        node.0.into()
    }
}

responses! {
    BatchHeartbeatResponse { results: HeartbeatResult(heartbeat_result) from HeartbeatAck }
    DeregisterNodeResponse { deregistered: Deleted }
    GetNodeResponse { node: Node }
    ListNodesResponse { nodes: Page<Node> }
    DiscoverNodesResponse { nodes: Page<LiveNode> }
}
