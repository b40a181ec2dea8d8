//! Heartbeats.

use chrono::{DateTime, Utc};

use super::{NodeHealth, NodeId};
use crate::json::JsonObject;

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

impl Heartbeat {
    /// Whether this heartbeat right after an `earlier` one of the same node
    /// leaves everything as it is.
    #[must_use]
    pub fn repeats(&self, earlier: &Heartbeat) -> bool {
        let same_health =
            self.health_status.is_none() || self.health_status == earlier.health_status;
        let same_metadata = self.metadata.is_none() || self.metadata == earlier.metadata;
        same_health && same_metadata
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(health_status: Option<NodeHealth>, metadata: Option<JsonObject>) -> Heartbeat {
        Heartbeat {
            node_id: NodeId::new("a".to_owned()),
            health_status,
            metadata,
        }
    }

    #[test]
    fn only_a_heartbeat_with_nothing_new_repeats_another() {
        let healthy = || heartbeat(Some(NodeHealth::Healthy), Some(JsonObject::default()));
        let degraded = || heartbeat(Some(NodeHealth::Degraded), None);
        let plain = || heartbeat(None, None);
        for (later, earlier, expected) in [
            (plain(), plain(), true),
            (plain(), healthy(), true),
            (healthy(), healthy(), true),
            (healthy(), plain(), false),
            (degraded(), healthy(), false),
            (
                heartbeat(None, Some(JsonObject::default())),
                degraded(),
                false,
            ),
        ] {
            assert_eq!(
                later.repeats(&earlier),
                expected,
                "{later:?} after {earlier:?}"
            );
        }
    }
}
