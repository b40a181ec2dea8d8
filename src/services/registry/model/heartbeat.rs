//! Heartbeats, and the answer to one.

use chrono::{DateTime, Utc};

use super::{NodeHealth, NodeId};
use crate::domain::{json::JsonObject, position::Position};

/// A heartbeat: a node reports that it is alive.
#[derive(Debug)]
pub struct Heartbeat {
    /// The node.
    pub node_id: NodeId,
    /// The health that the node reports; unset keeps the last one that it reported.
    pub health_status: Option<NodeHealth>,
    /// Replaces the node's metadata, if set.
    pub metadata: Option<JsonObject>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Copy)]
pub struct HeartbeatAck {
    /// The time until the node becomes stale, in milliseconds.
    pub heartbeat_ttl_ms: i64,
    /// The time at which the heartbeat was stored.
    pub last_heartbeat: DateTime<Utc>,
    /// The current health of the node.
    pub health_status: NodeHealth,
    /// The position of the row of the journal, if the heartbeat changed the health.
    pub position: Option<Position>,
}
