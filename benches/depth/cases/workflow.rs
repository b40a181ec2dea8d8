//! Cases of WorkflowService.

use bridgebook::proto::v1::{
    GetWorkflowRequest, GetWorkflowResponse, ListStampsRequest, ListStampsResponse,
    ListStepsRequest, ListStepsResponse, ListWorkflowsRequest, ListWorkflowsResponse,
    WorkflowState, get_workflow_request::Key,
};
use serde_json::json;

use super::{document, hours, timestamp};
use crate::{
    case::{Case, Params},
    dataset::{Dataset, FileHash, Kind, LARGE, SMALL},
};

/// Returns the cases of the service.
pub fn cases(dataset: Dataset) -> Vec<Case> {
    let mut cases = gets(dataset);
    cases.extend(lists(dataset));
    cases.push(steps(dataset));
    cases.extend(stamps(dataset));
    cases
}

/// Returns the number of one of the large tenant's workflows.
fn any(dataset: Dataset, params: &Params) -> u64 {
    params.number % (dataset.workflows / 2) * 2
}

fn workflow(dataset: Dataset, params: &Params) -> String {
    dataset
        .id(Kind::Workflow, any(dataset, params), 0)
        .to_string()
}

fn gets(dataset: Dataset) -> Vec<Case> {
    let get = |title, include_stamps, key: fn(Dataset, &Params) -> Key| {
        Case::new(
            "WorkflowService/GetWorkflow",
            title,
            move |params| GetWorkflowRequest {
                namespace: LARGE.to_owned(),
                key: Some(key(dataset, &params)),
                include_stamps,
            },
            GetWorkflowResponse::default,
        )
    };
    let by_id = |dataset: Dataset, params: &Params| Key::Id(workflow(dataset, params));
    vec![
        get("by id", false, by_id),
        get("by correlation_id", false, |dataset, params| {
            let id = dataset.id(Kind::Correlation, any(dataset, params), 0);
            Key::CorrelationId(id.to_string())
        }),
        get("with stamps", true, by_id),
    ]
}

fn lists(dataset: Dataset) -> Vec<Case> {
    let list = |title, filter: fn(Dataset, &Params) -> ListWorkflowsRequest| {
        Case::new(
            "WorkflowService/ListWorkflows",
            title,
            move |params| {
                let filter = filter(dataset, &params);
                ListWorkflowsRequest {
                    namespace: match filter.namespace.is_empty() {
                        true => LARGE.to_owned(),
                        false => filter.namespace,
                    },
                    page_size: params.page_size,
                    page_token: params.page_token,
                    ..filter
                }
            },
            ListWorkflowsResponse::default,
        )
    };
    let newest = |_: Dataset, _: &Params| ListWorkflowsRequest::default();
    vec![
        list("newest", newest),
        list("middle page", newest).after(dataset.workflows / 4),
        list("small tenant", |_, _| ListWorkflowsRequest {
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
        list("started before", |dataset, params| ListWorkflowsRequest {
            started_before: timestamp(
                dataset.time(dataset.workflows / 4 + any(dataset, params) / 2),
            ),
            ..ListWorkflowsRequest::default()
        }),
        list("by rare metadata", |dataset, params| ListWorkflowsRequest {
            metadata: document(json!({"batch": params.number % (dataset.workflows / 40)})),
            ..ListWorkflowsRequest::default()
        }),
        list("by frequent metadata", |_, _| ListWorkflowsRequest {
            metadata: document(json!({"team": "red"})),
            ..ListWorkflowsRequest::default()
        }),
    ]
}

fn steps(dataset: Dataset) -> Case {
    Case::new(
        "WorkflowService/ListSteps",
        "",
        move |params| ListStepsRequest {
            namespace: LARGE.to_owned(),
            page_size: params.page_size,
            workflow_id: workflow(dataset, &params),
            page_token: params.page_token,
        },
        ListStepsResponse::default,
    )
}

fn stamps(dataset: Dataset) -> Vec<Case> {
    let list = |title, filter: fn(Dataset, &Params) -> ListStampsRequest| {
        Case::new(
            "WorkflowService/ListStamps",
            title,
            move |params| ListStampsRequest {
                namespace: LARGE.to_owned(),
                page_size: params.page_size,
                page_token: params.page_token.clone(),
                ..filter(dataset, &params)
            },
            ListStampsResponse::default,
        )
    };
    let newest = |_: Dataset, _: &Params| ListStampsRequest::default();
    vec![
        list("by file", |dataset, params| ListStampsRequest {
            file_hash: FileHash(any(dataset, params) % dataset.files()).to_string(),
            ..ListStampsRequest::default()
        }),
        list("by workflow", |dataset, params| ListStampsRequest {
            workflow_id: workflow(dataset, params),
            ..ListStampsRequest::default()
        }),
        list("newest", newest),
        list("middle page", newest).after(dataset.workflows / 4),
        list("before a time", |dataset, params| ListStampsRequest {
            created_before: timestamp(
                dataset.time(dataset.workflows / 4 + any(dataset, params) / 2),
            ),
            ..ListStampsRequest::default()
        }),
    ]
}
