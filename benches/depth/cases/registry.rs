//! Cases of RegistryService. Both databases have the same number of nodes.

use bridgebook::proto::v1::{
    DiscoverNodesRequest, DiscoverNodesResponse, GetNodeRequest, GetNodeResponse, ListNodesRequest,
    ListNodesResponse, NodeHealth,
};

use crate::{
    case::Case,
    dataset::{LARGE, NODES, NodeId},
};

/// Returns the cases of the service.
pub fn cases() -> Vec<Case> {
    let get = Case::new(
        "RegistryService/GetNode",
        "",
        |params| GetNodeRequest {
            namespace: LARGE.to_owned(),
            node_id: NodeId(params.number % NODES).to_string(),
        },
        GetNodeResponse::default,
    );
    let discover = |title, owner: &'static str| {
        Case::new(
            "RegistryService/DiscoverNodes",
            title,
            move |params| DiscoverNodesRequest {
                namespace: LARGE.to_owned(),
                node_type: "registry".to_owned(),
                page_size: params.page_size,
                page_token: params.page_token,
                owner: owner.to_owned(),
                ..DiscoverNodesRequest::default()
            },
            DiscoverNodesResponse::default,
        )
    };
    let list = |title, filter: ListNodesRequest| {
        Case::new(
            "RegistryService/ListNodes",
            title,
            move |params| ListNodesRequest {
                namespace: LARGE.to_owned(),
                page_size: params.page_size,
                page_token: params.page_token,
                ..filter.clone()
            },
            ListNodesResponse::default,
        )
    };
    let unhealthy = ListNodesRequest {
        health_statuses: vec![NodeHealth::Unhealthy.into()],
        ..ListNodesRequest::default()
    };
    vec![
        get,
        list("all", ListNodesRequest::default()),
        list("by health", unhealthy),
        discover("of all owners", ""),
        discover("by owner", LARGE),
    ]
}
