//! Requests of RegistryService.

use bridgebook::proto::v1;

use super::Asked;

impl Asked<'_> {
    pub(super) fn node_id(&self) -> String {
        self.pools.nodes[self.call.thing].clone()
    }

    pub(super) fn register(&self) -> v1::RegisterNodeRequest {
        v1::RegisterNodeRequest {
            namespace: self.namespace(),
            node_id: self.node_id(),
            node_type: self.by.name("type"),
            node_version: self.by.name("v1"),
            metadata: self.by.document(self.call.state),
            ..Default::default()
        }
    }

    pub(super) fn heartbeat(&self, node_id: &str) -> v1::NodeHeartbeat {
        v1::NodeHeartbeat {
            node_id: node_id.into(),
            health_status: i32::from(self.call.variant % 4),
            metadata: self.by.document(self.call.state),
        }
    }

    pub(super) fn beat(&self) -> v1::HeartbeatRequest {
        v1::HeartbeatRequest {
            namespace: self.namespace(),
            heartbeat: Some(self.heartbeat(&self.node_id())),
        }
    }

    pub(super) fn beat_all(&self) -> v1::BatchHeartbeatRequest {
        let nodes = self.pools.nodes.iter();
        v1::BatchHeartbeatRequest {
            namespace: self.namespace(),
            heartbeats: nodes.map(|node| self.heartbeat(node)).collect(),
        }
    }

    pub(super) fn deregister(&self) -> v1::DeregisterNodeRequest {
        v1::DeregisterNodeRequest {
            namespace: self.namespace(),
            node_id: self.node_id(),
            allow_missing: self.has(0),
        }
    }

    pub(super) fn get_node(&self) -> v1::GetNodeRequest {
        v1::GetNodeRequest {
            namespace: self.namespace(),
            node_id: self.node_id(),
        }
    }

    pub(super) fn list_nodes(&self) -> v1::ListNodesRequest {
        v1::ListNodesRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            ..Default::default()
        }
    }

    pub(super) fn discover(&self) -> v1::DiscoverNodesRequest {
        v1::DiscoverNodesRequest {
            namespace: self.namespace(),
            node_type: self.by.name("type"),
            limit: 0,
        }
    }
}
