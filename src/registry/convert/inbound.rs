//! Requests. Every violation is collected.

use std::{collections::HashSet, mem};

use prost_types::Duration;

use crate::{
    id::TransitionId,
    items::{many, single},
    json::{JsonObject, Struct},
    page::{DEFAULT_SIZE, PageRequest},
    proto::v1,
    registry::model::{
        DEFAULT_TTL_MS, Deregistration, Discovery, Heartbeat, NewNode, NodeFilter, NodeHealth,
        NodeId, NodeQuery, TTL_MS,
    },
    tenant_requests, time,
    validate::{Checker, Violations},
};

tenant_requests!(
    v1::RegisterNodeRequest,
    v1::HeartbeatRequest,
    v1::BatchHeartbeatRequest,
    v1::DeregisterNodeRequest,
    v1::GetNodeRequest,
    v1::ListNodesRequest,
    v1::DiscoverNodesRequest,
);

/// The largest document of a node, in bytes as protobuf.
const MAX_DOCUMENT: usize = 16 * 1024;

/// How deep it may nest. Many protobuf libraries read no further than this, and
/// would fail on the whole list for the sake of one node, which may be a stranger's.
const MAX_DEPTH: usize = 32;

impl TryFrom<v1::RegisterNodeRequest> for NewNode {
    type Error = Violations;

    fn try_from(request: v1::RegisterNodeRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let health = optional_health(&mut check, "health_status", request.health_status);
        let new = NewNode {
            node_id: node_id(&mut check, request.node_id),
            transition_id: TransitionId::generate(),
            node_type: check.node_type("node_type", request.node_type),
            node_version: check.node_version("node_version", request.node_version),
            capabilities: document(&mut check, "capabilities", request.capabilities),
            endpoints: document(&mut check, "endpoints", request.endpoints),
            metadata: document(&mut check, "metadata", request.metadata),
            health_status: health.unwrap_or(NodeHealth::Healthy),
            heartbeat_ttl_ms: ttl_ms(&mut check, "heartbeat_ttl", request.heartbeat_ttl),
        };
        check.finish(new)
    }
}

impl TryFrom<v1::HeartbeatRequest> for Heartbeat {
    type Error = Violations;

    fn try_from(request: v1::HeartbeatRequest) -> Result<Self, Violations> {
        single(request.heartbeat, "heartbeat", heartbeat)
    }
}

impl TryFrom<v1::BatchHeartbeatRequest> for Vec<Result<Heartbeat, Violations>> {
    type Error = Violations;

    fn try_from(request: v1::BatchHeartbeatRequest) -> Result<Self, Violations> {
        let heartbeats = many(request.heartbeats, "heartbeats", heartbeat)?;
        let mut seen = HashSet::new();
        let heartbeats = heartbeats.into_iter().enumerate().map(|(index, item)| {
            let item = item?;
            match seen.insert(item.node_id.as_str().to_owned()) {
                true => Ok(item),
                false => Err(Violations::one(
                    &format!("heartbeats[{index}].node_id"),
                    "must not be that of an earlier heartbeat of the batch",
                )),
            }
        });
        Ok(heartbeats.collect())
    }
}

impl TryFrom<v1::DeregisterNodeRequest> for Deregistration {
    type Error = Violations;

    fn try_from(request: v1::DeregisterNodeRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let deregistration = Deregistration {
            transition_id: TransitionId::generate(),
            node_id: node_id(&mut check, request.node_id),
            allow_missing: request.allow_missing,
        };
        check.finish(deregistration)
    }
}

impl TryFrom<v1::GetNodeRequest> for NodeQuery {
    type Error = Violations;

    fn try_from(request: v1::GetNodeRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let node_id = node_id(&mut check, request.node_id);
        check.finish(NodeQuery { node_id })
    }
}

impl TryFrom<v1::ListNodesRequest> for NodeFilter {
    type Error = Violations;

    fn try_from(mut request: v1::ListNodesRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let size = mem::take(&mut request.page_size);
        let token = mem::take(&mut request.page_token);
        let page = PageRequest::read(&mut check, size, &token, "ListNodes", &request);
        let node_type = Some(request.node_type).filter(|text| !text.is_empty());
        let owner = Some(request.owner).filter(|text| !text.is_empty());
        let within = request.heartbeat_within;
        let filter = NodeFilter {
            node_type: node_type.map(|text| check.node_type("node_type", text)),
            health_statuses: health_statuses(&mut check, &request.health_statuses),
            capabilities: check.json("capabilities", request.capabilities),
            heartbeat_within_micros: check.optional_within("heartbeat_within", within),
            heartbeat_older_than_micros: check
                .optional_within("heartbeat_older_than", request.heartbeat_older_than),
            owner: owner.map(|text| check.namespace("owner", text)),
            page,
        };
        check.finish(filter)
    }
}

impl TryFrom<v1::DiscoverNodesRequest> for Discovery {
    type Error = Violations;

    fn try_from(request: v1::DiscoverNodesRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let discovery = Discovery {
            node_type: check.node_type("node_type", request.node_type),
            limit: check.limit("limit", request.limit, DEFAULT_SIZE),
        };
        check.finish(discovery)
    }
}

fn heartbeat(field: &str, heartbeat: v1::NodeHeartbeat) -> Result<Heartbeat, Violations> {
    let mut check = Checker::within(field);
    let metadata = heartbeat.metadata;
    let heartbeat = Heartbeat {
        node_id: node_id(&mut check, heartbeat.node_id),
        health_status: optional_health(&mut check, "health_status", heartbeat.health_status),
        // An empty document is one too: it takes the place of what is there.
        metadata: metadata.map(|it| document(&mut check, "metadata", Some(it))),
    };
    check.finish(heartbeat)
}

/// What a node says of itself is read by everybody who looks for nodes, many at a time.
fn document(check: &mut Checker, field: &str, document: Option<Struct>) -> JsonObject {
    check.small_json(field, document, MAX_DOCUMENT, MAX_DEPTH)
}

fn node_id(check: &mut Checker, text: String) -> NodeId {
    NodeId::new(check.node_id("node_id", text))
}

fn optional_health(check: &mut Checker, field: &str, number: i32) -> Option<NodeHealth> {
    match v1::NodeHealth::try_from(number) {
        Ok(v1::NodeHealth::Unspecified) => None,
        Ok(v1::NodeHealth::Healthy) => Some(NodeHealth::Healthy),
        Ok(v1::NodeHealth::Degraded) => Some(NodeHealth::Degraded),
        Ok(v1::NodeHealth::Unhealthy) => Some(NodeHealth::Unhealthy),
        Err(_) => {
            check.violation(field, format!("must be a NodeHealth, not {number}"));
            None
        }
    }
}

fn health_statuses(check: &mut Checker, numbers: &[i32]) -> Vec<NodeHealth> {
    let mut statuses = Vec::new();
    for (index, number) in numbers.iter().enumerate() {
        let field = format!("health_statuses[{index}]");
        match optional_health(check, &field, *number) {
            Some(status) if statuses.contains(&status) => {}
            Some(status) => statuses.push(status),
            None => {
                if *number == 0 {
                    check.violation(&field, "must not be unspecified");
                }
                break;
            }
        }
        // All there are; a million repetitions say no more.
        if statuses.len() == NodeHealth::ALL.len() {
            break;
        }
    }
    statuses
}

fn ttl_ms(check: &mut Checker, field: &str, ttl: Option<Duration>) -> i64 {
    let Some(ttl) = ttl else {
        return DEFAULT_TTL_MS;
    };
    match time::to_millis(&ttl).filter(|millis| TTL_MS.contains(millis)) {
        Some(millis) => millis,
        None => {
            check.violation(field, "must be from 1 second to 1 day");
            DEFAULT_TTL_MS
        }
    }
}
