//! Converts requests to domain types, and collects every violation.

use std::collections::HashSet;

use prost_types::Duration;

use crate::{
    domain::{
        id::TransitionId,
        json::{JsonObject, Struct},
        time,
        violation::Violations,
    },
    proto::v1,
    rpc::{
        admit::FromRequest,
        batch_request::{parse_item, parse_items},
        page_token::read_page,
        validate::{Validator, proto_enum},
    },
    services::registry::model::{
        DEFAULT_TTL_MS, Deregistration, Discovery, Heartbeat, NewNode, NodeFilter, NodeHealth,
        NodeId, NodeQuery, TTL_MS,
    },
};

/// Maximum size of each document of a node, in bytes as protobuf.
const MAX_DOCUMENT: usize = 16 * 1024;

/// Maximum depth of each document of a node. Many protobuf libraries reject deeper messages,
/// and would fail on a whole list because of one node, which may be another tenant's.
const MAX_DEPTH: usize = 32;

proto_enum!(NodeHealth = v1::NodeHealth {
    Healthy = Healthy,
    Degraded = Degraded,
    Unhealthy = Unhealthy,
});

impl FromRequest<v1::RegisterNodeRequest> for NewNode {
    fn from_request(request: v1::RegisterNodeRequest, check: &mut Validator) -> Self {
        let health = check.optional_enum("health_status", request.health_status);
        NewNode {
            node_id: NodeId::new(check.node_id("node_id", request.node_id)),
            transition_id: TransitionId::generate(),
            node_type: check.name("node_type", request.node_type),
            node_version: check.node_version("node_version", request.node_version),
            capabilities: document(check, "capabilities", request.capabilities),
            endpoints: document(check, "endpoints", request.endpoints),
            metadata: document(check, "metadata", request.metadata),
            health_status: health.unwrap_or(NodeHealth::Healthy),
            heartbeat_ttl_ms: ttl_ms(check, "heartbeat_ttl", request.heartbeat_ttl),
        }
    }
}

impl FromRequest<v1::HeartbeatRequest> for Heartbeat {
    fn from_request(request: v1::HeartbeatRequest, check: &mut Validator) -> Self {
        parse_item(request.heartbeat, "heartbeat", check, heartbeat)
    }
}

impl FromRequest<v1::BatchHeartbeatRequest> for Vec<Result<Heartbeat, Violations>> {
    fn from_request(request: v1::BatchHeartbeatRequest, check: &mut Validator) -> Self {
        let heartbeats = parse_items(request.heartbeats, "heartbeats", check, heartbeat);
        let mut seen = HashSet::new();
        let heartbeats = heartbeats.into_iter().enumerate().map(|(index, item)| {
            let item = item?;
            match seen.insert(item.node_id.as_str().to_owned()) {
                true => Ok(item),
                false => Err(Violations::one(
                    &format!("heartbeats[{index}].node_id"),
                    "must not repeat the node_id of an earlier heartbeat of the batch",
                )),
            }
        });
        heartbeats.collect()
    }
}

impl FromRequest<v1::DeregisterNodeRequest> for Deregistration {
    fn from_request(request: v1::DeregisterNodeRequest, check: &mut Validator) -> Self {
        Deregistration {
            transition_id: TransitionId::generate(),
            node_id: node_id(check, request.node_id),
            allow_missing: request.allow_missing,
        }
    }
}

impl FromRequest<v1::GetNodeRequest> for NodeQuery {
    fn from_request(request: v1::GetNodeRequest, check: &mut Validator) -> Self {
        let node_id = node_id(check, request.node_id);
        NodeQuery { node_id }
    }
}

impl FromRequest<v1::ListNodesRequest> for NodeFilter {
    fn from_request(mut request: v1::ListNodesRequest, check: &mut Validator) -> Self {
        let page = read_page(check, &mut request);
        let within = request.heartbeat_within;
        NodeFilter {
            node_type: check.optional_stored_name("node_type", request.node_type),
            health_statuses: check.enum_set("health_statuses", &request.health_statuses),
            capabilities: check.json_filter("capabilities", request.capabilities),
            heartbeat_within_micros: check.optional_within("heartbeat_within", within),
            heartbeat_older_than_micros: check
                .optional_within("heartbeat_older_than", request.heartbeat_older_than),
            owner: owner(check, request.owner),
            page,
        }
    }
}

impl FromRequest<v1::DiscoverNodesRequest> for Discovery {
    fn from_request(mut request: v1::DiscoverNodesRequest, check: &mut Validator) -> Self {
        let page = read_page(check, &mut request);
        Discovery {
            node_type: check.stored_name("node_type", request.node_type),
            owner: owner(check, request.owner),
            capabilities: check.json_filter("capabilities", request.capabilities),
            page,
        }
    }
}

fn heartbeat(heartbeat: v1::NodeHeartbeat, check: &mut Validator) -> Heartbeat {
    let metadata = heartbeat.metadata;
    Heartbeat {
        node_id: node_id(check, heartbeat.node_id),
        health_status: check.optional_enum("health_status", heartbeat.health_status),
        // An empty document is a document, too: it replaces the metadata.
        metadata: metadata.map(|it| document(check, "metadata", Some(it))),
    }
}

/// Checks a document of a node. Its limits are low, because lists return many nodes.
fn document(check: &mut Validator, field: &str, document: Option<Struct>) -> JsonObject {
    check.small_json(field, document, MAX_DOCUMENT, MAX_DEPTH)
}

/// Checks the name of a registered node.
fn node_id(check: &mut Validator, text: String) -> NodeId {
    NodeId::new(check.stored_node_id("node_id", text))
}

fn owner(check: &mut Validator, text: String) -> Option<String> {
    (!text.is_empty()).then(|| check.namespace("owner", text))
}

fn ttl_ms(check: &mut Validator, field: &str, ttl: Option<Duration>) -> i64 {
    let Some(ttl) = ttl else {
        return DEFAULT_TTL_MS;
    };
    match time::to_millis(&ttl).filter(|millis| TTL_MS.contains(millis)) {
        Some(millis) => millis,
        None => {
            let ttl = time::describe(&ttl);
            check.violation(field, format!("must be from 1 second to 1 day, got {ttl}"));
            DEFAULT_TTL_MS
        }
    }
}
