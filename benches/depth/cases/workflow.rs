//! WorkflowService.

use bridgebook::proto::v1::{
    GetWorkflowRequest, GetWorkflowResponse, ListStampsRequest, ListStampsResponse,
    ListStepsRequest, ListStepsResponse, ListWorkflowsRequest, ListWorkflowsResponse,
    WorkflowState, get_workflow_request::Key,
};
use serde_json::json;

use super::{document, hours, timestamp};
use crate::{
    case::{Ask, Case},
    world::{FileHash, Kind, LARGE, SMALL, World},
};

/// The cases of the service.
pub fn cases(world: World) -> Vec<Case> {
    let mut cases = gets(world);
    cases.extend(lists(world));
    cases.push(steps(world));
    cases.extend(stamps(world));
    cases
}

/// The number of one of the large tenant's workflows.
fn any(world: World, ask: &Ask) -> u64 {
    ask.number % (world.workflows / 2) * 2
}

fn workflow(world: World, ask: &Ask) -> String {
    world.id(Kind::Workflow, any(world, ask), 0).to_string()
}

fn gets(world: World) -> Vec<Case> {
    let get = |title, include_stamps, key: fn(World, &Ask) -> Key| {
        Case::new(
            "WorkflowService/GetWorkflow",
            title,
            move |ask| GetWorkflowRequest {
                namespace: LARGE.to_owned(),
                key: Some(key(world, &ask)),
                include_stamps,
            },
            GetWorkflowResponse::default,
        )
    };
    let by_id = |world: World, ask: &Ask| Key::Id(workflow(world, ask));
    vec![
        get("by id", false, by_id),
        get("by correlation_id", false, |world, ask| {
            let id = world.id(Kind::Correlation, any(world, ask), 0);
            Key::CorrelationId(id.to_string())
        }),
        get("with its stamps", true, by_id),
    ]
}

fn lists(world: World) -> Vec<Case> {
    let list = |title, filter: fn(World, &Ask) -> ListWorkflowsRequest| {
        Case::new(
            "WorkflowService/ListWorkflows",
            title,
            move |ask| {
                let filter = filter(world, &ask);
                ListWorkflowsRequest {
                    namespace: match filter.namespace.is_empty() {
                        true => LARGE.to_owned(),
                        false => filter.namespace,
                    },
                    page_size: ask.page_size,
                    page_token: ask.page_token,
                    ..filter
                }
            },
            ListWorkflowsResponse::default,
        )
    };
    let newest = |_: World, _: &Ask| ListWorkflowsRequest::default();
    vec![
        list("newest", newest),
        list("a page in the middle", newest).after(world.workflows / 4),
        list("of a small tenant", |_, _| ListWorkflowsRequest {
            namespace: SMALL.to_owned(),
            ..ListWorkflowsRequest::default()
        }),
        list("by state", |_, _| ListWorkflowsRequest {
            states: vec![WorkflowState::Failed.into()],
            ..ListWorkflowsRequest::default()
        }),
        list("by two states", |_, _| ListWorkflowsRequest {
            states: vec![
                WorkflowState::Failed.into(),
                WorkflowState::Cancelled.into(),
            ],
            ..ListWorkflowsRequest::default()
        }),
        list("by type", |_, _| ListWorkflowsRequest {
            workflow_type: "import".to_owned(),
            ..ListWorkflowsRequest::default()
        }),
        list("by type and state", |_, _| ListWorkflowsRequest {
            workflow_type: "import".to_owned(),
            states: vec![WorkflowState::Failed.into()],
            ..ListWorkflowsRequest::default()
        }),
        list("started within a day", |_, _| ListWorkflowsRequest {
            started_within: hours(24),
            ..ListWorkflowsRequest::default()
        }),
        list("started before", |world, ask| ListWorkflowsRequest {
            started_before: timestamp(world.time(world.workflows / 4 + any(world, ask) / 2)),
            ..ListWorkflowsRequest::default()
        }),
        list("by rare metadata", |world, ask| ListWorkflowsRequest {
            metadata: document(json!({"batch": ask.number % (world.workflows / 40)})),
            ..ListWorkflowsRequest::default()
        }),
        list("by frequent metadata", |_, _| ListWorkflowsRequest {
            metadata: document(json!({"team": "red"})),
            ..ListWorkflowsRequest::default()
        }),
    ]
}

fn steps(world: World) -> Case {
    Case::new(
        "WorkflowService/ListSteps",
        "",
        move |ask| ListStepsRequest {
            namespace: LARGE.to_owned(),
            page_size: ask.page_size,
            workflow_id: workflow(world, &ask),
            page_token: ask.page_token,
        },
        ListStepsResponse::default,
    )
}

fn stamps(world: World) -> Vec<Case> {
    let list = |title, filter: fn(World, &Ask) -> ListStampsRequest| {
        Case::new(
            "WorkflowService/ListStamps",
            title,
            move |ask| ListStampsRequest {
                namespace: LARGE.to_owned(),
                page_size: ask.page_size,
                page_token: ask.page_token.clone(),
                ..filter(world, &ask)
            },
            ListStampsResponse::default,
        )
    };
    let newest = |_: World, _: &Ask| ListStampsRequest::default();
    vec![
        list("by file", |world, ask| ListStampsRequest {
            file_hash: FileHash(any(world, ask) % world.files()).to_string(),
            ..ListStampsRequest::default()
        }),
        list("by workflow", |world, ask| ListStampsRequest {
            workflow_id: workflow(world, ask),
            ..ListStampsRequest::default()
        }),
        list("newest", newest),
        list("a page in the middle", newest).after(world.workflows / 4),
        list("of a time", |world, ask| ListStampsRequest {
            created_before: timestamp(world.time(world.workflows / 4 + any(world, ask) / 2)),
            ..ListStampsRequest::default()
        }),
    ]
}
