//! Heartbeats.

use chrono::{DateTime, Utc};

use super::{NodeHealth, NodeId};
use crate::domain::json::JsonObject;

/// A node says that it is alive.
#[derive(Debug)]
pub struct Heartbeat {
    /// The node.
    pub node_id: NodeId,
    /// How it is; as it was if not given.
    pub health_status: Option<NodeHealth>,
    /// Takes the place of its metadata, if given.
    pub metadata: Option<JsonObject>,
}

/// What a heartbeat answers.
#[derive(Debug, Clone, Copy)]
pub struct Pulse {
    /// For how long the node counts as alive, in milliseconds.
    pub heartbeat_ttl_ms: i64,
    /// When the heartbeat was stored.
    pub last_heartbeat: DateTime<Utc>,
    /// How the node is now.
    pub health_status: NodeHealth,
}
