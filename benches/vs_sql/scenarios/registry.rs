//! Scenarios of RegistryService.

use bridgebook::proto::v1::{
    BatchHeartbeatRequest, BatchHeartbeatResponse, DiscoverNodesRequest, DiscoverNodesResponse,
    HeartbeatRequest, HeartbeatResponse, NodeHealth, NodeHeartbeat, heartbeat_result,
    registry_service_server,
};

use super::{NAMESPACE, Random, expect};
use crate::{Result, load::Call, scenario::Scenario, seed::seed, stage::Stage};

/// The number of nodes.
const NODES: u64 = 10_000;

/// The number of node types, of equal size; the seed uses the same. With a few large types
/// PostgreSQL would scan all nodes by last_heartbeat instead, and the script would no longer be
/// the best that SQL can do.
const TYPES: u64 = 50;

/// Replaces all nodes by new, healthy ones. The last measurement left dead rows, and its nodes
/// may be stale by now.
async fn seed_nodes(stage: &Stage, database: &str) -> Result<()> {
    stage
        .execute(database, "TRUNCATE node_registrations")
        .await?;
    seed(stage, database, include_str!("../seed_nodes.sql"), NODES).await?;
    stage
        .execute(database, "VACUUM ANALYZE node_registrations")
        .await
}

/// Returns the heartbeat of the node with this number.
fn heartbeat(number: u64) -> NodeHeartbeat {
    NodeHeartbeat {
        node_id: format!("node-{number}"),
        ..NodeHeartbeat::default()
    }
}

fn is_healthy(response: &HeartbeatResponse) -> bool {
    response.health_status() == NodeHealth::Healthy
}

/// Heartbeat: each call is one of a random node.
#[derive(Default)]
pub struct Heartbeat {
    random: Random,
}

impl Call for Heartbeat {
    type Request = HeartbeatRequest;
    type Response = HeartbeatResponse;
    const SERVICE: &'static str = registry_service_server::SERVICE_NAME;
    const METHOD: &'static str = "Heartbeat";
    const TITLE: &'static str = "Heartbeat, 10000 nodes";

    fn request(&self) -> HeartbeatRequest {
        HeartbeatRequest {
            namespace: NAMESPACE.to_owned(),
            heartbeat: Some(heartbeat(self.random.up_to(NODES))),
        }
    }

    fn check(&self, response: HeartbeatResponse) -> Result<()> {
        expect(is_healthy(&response), "the node is not healthy")
    }
}

impl Scenario for Heartbeat {
    const SCRIPT: &'static str = "heartbeat.sql";
    const CALLERS: &'static [usize] = &[64];
    const UNIT: &'static str = "calls";

    fn variables(&self) -> Vec<(&'static str, u64)> {
        vec![("nodes", NODES)]
    }

    async fn before(&self, stage: &Stage, database: &str) -> Result<()> {
        seed_nodes(stage, database).await
    }
}

/// BatchHeartbeat: 1000 nodes per call, spread over the table.
#[derive(Default)]
pub struct BatchHeartbeat {
    random: Random,
}

impl Call for BatchHeartbeat {
    type Request = BatchHeartbeatRequest;
    type Response = BatchHeartbeatResponse;
    const SERVICE: &'static str = registry_service_server::SERVICE_NAME;
    const METHOD: &'static str = "BatchHeartbeat";
    const TITLE: &'static str = "BatchHeartbeat, 1000 per call";
    const ROWS_PER_CALL: u32 = 1000;

    fn request(&self) -> BatchHeartbeatRequest {
        /// Coprime to the number of nodes, so that no node occurs twice in a call.
        const STRIDE: u64 = 7919;
        let first = self.random.number() % NODES;
        let nodes = (0..u64::from(Self::ROWS_PER_CALL)).map(|place| first + place * STRIDE);
        BatchHeartbeatRequest {
            namespace: NAMESPACE.to_owned(),
            heartbeats: nodes.map(|node| heartbeat(1 + node % NODES)).collect(),
        }
    }

    fn check(&self, response: BatchHeartbeatResponse) -> Result<()> {
        use heartbeat_result::Result::Response;
        let is_stored = |result: &Option<_>| matches!(result, Some(Response(it)) if is_healthy(it));
        let mut results = response.results.iter();
        expect(
            response.results.len() == 1000 && results.all(|item| is_stored(&item.result)),
            "expected 1000 healthy nodes",
        )
    }
}

impl Scenario for BatchHeartbeat {
    const SCRIPT: &'static str = "heartbeat.sql";
    const CALLERS: &'static [usize] = &[2];
    const UNIT: &'static str = "rows";

    fn variables(&self) -> Vec<(&'static str, u64)> {
        vec![("nodes", NODES)]
    }

    async fn before(&self, stage: &Stage, database: &str) -> Result<()> {
        seed_nodes(stage, database).await
    }
}

/// DiscoverNodes: the 20 nodes with the latest heartbeat, of the 200 of a type.
#[derive(Default)]
pub struct Discover {
    random: Random,
}

impl Discover {
    /// The limit in the request. The script uses the same one.
    const LIMIT: u16 = 20;
}

impl Call for Discover {
    type Request = DiscoverNodesRequest;
    type Response = DiscoverNodesResponse;
    const SERVICE: &'static str = registry_service_server::SERVICE_NAME;
    const METHOD: &'static str = "DiscoverNodes";
    const TITLE: &'static str = "DiscoverNodes, 20 of 10000";

    fn request(&self) -> DiscoverNodesRequest {
        DiscoverNodesRequest {
            namespace: NAMESPACE.to_owned(),
            node_type: format!("type-{}", self.random.up_to(TYPES)),
            page_size: Self::LIMIT.into(),
            ..DiscoverNodesRequest::default()
        }
    }

    fn check(&self, response: DiscoverNodesResponse) -> Result<()> {
        expect(
            response.nodes.len() == usize::from(Self::LIMIT),
            "expected 20 nodes",
        )
    }
}

impl Scenario for Discover {
    const SCRIPT: &'static str = "discover.sql";
    const CALLERS: &'static [usize] = &[16];
    const UNIT: &'static str = "calls";

    fn variables(&self) -> Vec<(&'static str, u64)> {
        vec![("types", TYPES)]
    }

    async fn before(&self, stage: &Stage, database: &str) -> Result<()> {
        seed_nodes(stage, database).await
    }
}
