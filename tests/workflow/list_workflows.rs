use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bridgebook::proto::v1::{
    ListWorkflowsRequest, ListWorkflowsResponse, StartWorkflowRequest, Workflow, WorkflowState,
};
use prost::Message;
use prost_types::{Duration, Timestamp};
use serde_json::json;
use tonic::Status;

use crate::support::{App, Failure, Tenant, document, failure};

async fn list(
    tenant: &Tenant,
    request: ListWorkflowsRequest,
) -> Result<ListWorkflowsResponse, Status> {
    let request = ListWorkflowsRequest {
        namespace: tenant.namespace.clone(),
        ..request
    };
    tenant
        .client
        .clone()
        .list_workflows(request)
        .await
        .map(tonic::Response::into_inner)
}

/// Returns the ids of all pages.
async fn all(tenant: &Tenant, mut request: ListWorkflowsRequest) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let page = list(tenant, request.clone()).await.unwrap();
        let workflows = page
            .workflows
            .into_iter()
            .filter_map(|summary| summary.workflow);
        ids.extend(workflows.map(|workflow| workflow.id));
        if page.next_page_token.is_empty() {
            return ids;
        }
        request.page_token = page.next_page_token;
    }
}

async fn start_at(tenant: &Tenant, seconds: i64) -> Workflow {
    let request = StartWorkflowRequest {
        started_at: Some(Timestamp { seconds, nanos: 0 }),
        ..tenant.new_workflow()
    };
    tenant.start_as(request).await
}

fn ids(workflows: &[&Workflow]) -> Vec<String> {
    workflows
        .iter()
        .map(|workflow| workflow.id.clone())
        .collect()
}

#[tokio::test]
async fn lists_the_newest_first_with_their_step_counts() {
    let (app, tenant) = App::with_tenant().await;
    let old = start_at(&tenant, 1_000).await;
    let new = start_at(&tenant, 2_000).await;
    app.tenant().start().await;
    let steps = (0..3).map(|order| tenant.new_step(&old, order));
    tenant.record_steps(steps.collect()).await;
    let page = list(&tenant, ListWorkflowsRequest::default())
        .await
        .unwrap();
    let rows = page.workflows.into_iter();
    let rows: Vec<_> = rows
        .map(|row| (row.workflow.unwrap(), row.step_count))
        .collect();
    assert_eq!(rows, [(new, 0), (old, 3)]);
    assert!(page.next_page_token.is_empty());
}

#[tokio::test]
async fn every_filter_narrows_the_list() {
    let (_app, tenant) = App::with_tenant().await;
    let old = start_at(&tenant, 1_000).await;
    let new = start_at(&tenant, 2_000).await;
    let now = tenant
        .start_as(StartWorkflowRequest {
            workflow_type: "other".into(),
            current_state: WorkflowState::Processing.into(),
            metadata: document(json!({"team": "red", "list": [1, 2], "deep": {"a": 1, "b": 2}})),
            ..tenant.new_workflow()
        })
        .await;
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let metadata = |value| ListWorkflowsRequest {
        metadata: document(value),
        ..Default::default()
    };
    let cases = [
        (
            ListWorkflowsRequest {
                states: vec![1],
                ..Default::default()
            },
            vec![&new, &old],
        ),
        (
            ListWorkflowsRequest {
                states: vec![2, 3, 2],
                ..Default::default()
            },
            vec![&now],
        ),
        (
            ListWorkflowsRequest {
                states: vec![1, 2],
                ..Default::default()
            },
            vec![&now, &new, &old],
        ),
        (
            ListWorkflowsRequest {
                workflow_type: "other".into(),
                ..Default::default()
            },
            vec![&now],
        ),
        (
            ListWorkflowsRequest {
                started_after: at(1_000),
                ..Default::default()
            },
            vec![&now, &new],
        ),
        (
            ListWorkflowsRequest {
                started_before: at(2_000),
                ..Default::default()
            },
            vec![&old],
        ),
        (
            ListWorkflowsRequest {
                started_within: Some(Duration {
                    seconds: 3600,
                    nanos: 0,
                }),
                ..Default::default()
            },
            vec![&now],
        ),
        (
            ListWorkflowsRequest {
                started_within: Some(Duration {
                    seconds: 315_576_000_000,
                    nanos: 0,
                }),
                ..Default::default()
            },
            vec![&now, &new, &old],
        ),
        (metadata(json!({"team": "red"})), vec![&now]),
        (
            metadata(json!({"deep": {"b": 2.0}, "list": [2]})),
            vec![&now],
        ),
        (metadata(json!({"team": "blue"})), vec![]),
        (
            ListWorkflowsRequest {
                states: vec![2],
                started_before: at(2_000),
                ..Default::default()
            },
            vec![],
        ),
    ];
    for (number, (request, expected)) in cases.into_iter().enumerate() {
        assert_eq!(all(&tenant, request).await, ids(&expected), "case {number}");
    }
}

#[tokio::test]
async fn pages_cover_everything_once_even_where_times_are_equal() {
    let (_app, tenant) = App::with_tenant().await;
    let mut expected = Vec::new();
    for number in 0..23 {
        expected.push(start_at(&tenant, 1_000 + number / 5).await.id);
    }
    let request = ListWorkflowsRequest {
        page_size: 4,
        ..Default::default()
    };
    let listed = all(&tenant, request.clone()).await;
    let everything = all(&tenant, ListWorkflowsRequest::default()).await;
    assert_eq!(listed, everything);
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    assert_eq!(sorted(listed), sorted(expected));
    let page = list(&tenant, request).await.unwrap();
    assert_eq!(page.workflows.len(), 4);
}

#[tokio::test]
async fn rows_that_arrive_between_pages_do_not_shift_them() {
    let (_app, tenant) = App::with_tenant().await;
    let old = start_at(&tenant, 1_000).await;
    let new = start_at(&tenant, 2_000).await;
    let request = ListWorkflowsRequest {
        page_size: 1,
        ..Default::default()
    };
    let first = list(&tenant, request.clone()).await.unwrap();
    assert_eq!(first.workflows[0].workflow.as_ref(), Some(&new));
    start_at(&tenant, 3_000).await;
    let request = ListWorkflowsRequest {
        page_token: first.next_page_token,
        ..request
    };
    let second = list(&tenant, request).await.unwrap();
    assert_eq!(second.workflows[0].workflow.as_ref(), Some(&old));
}

#[tokio::test]
async fn a_page_of_large_rows_fits_into_a_message() {
    let (_app, tenant) = App::with_tenant().await;
    for _ in 0..8 {
        let request = StartWorkflowRequest {
            metadata: document(json!({ "x": "y".repeat(900 * 1024) })),
            ..tenant.new_workflow()
        };
        tenant.start_as(request).await;
    }
    let first = list(&tenant, ListWorkflowsRequest::default())
        .await
        .unwrap();
    assert!(first.workflows.len() < 8);
    assert_eq!(all(&tenant, ListWorkflowsRequest::default()).await.len(), 8);
}

#[tokio::test]
async fn a_page_token_is_valid_only_for_its_own_query() {
    let (app, tenant) = App::with_tenant().await;
    for _ in 0..3 {
        tenant.start().await;
    }
    let request = ListWorkflowsRequest {
        page_size: 1,
        ..Default::default()
    };
    let page_token = list(&tenant, request.clone())
        .await
        .unwrap()
        .next_page_token;
    let again = ListWorkflowsRequest {
        page_token: page_token.clone(),
        page_size: 2,
        ..request
    };
    assert_eq!(
        list(&tenant, again.clone()).await.unwrap().workflows.len(),
        2
    );
    let invalid = Failure::invalid(&["page_token"]);
    assert_eq!(failure(list(&app.tenant(), again.clone()).await), invalid);
    let other = ListWorkflowsRequest {
        states: vec![1],
        ..again.clone()
    };
    assert_eq!(failure(list(&tenant, other).await), invalid);
    let stamps = bridgebook::proto::v1::ListStampsRequest {
        namespace: tenant.namespace.clone(),
        page_token: page_token.clone(),
        ..Default::default()
    };
    assert_eq!(
        failure(tenant.client.clone().list_stamps(stamps).await),
        invalid
    );
    let cut = page_token[..page_token.len() - 4].to_owned();
    for made_up in [
        "x",
        "AAAA",
        "not base64!",
        "a\0b",
        cut.as_str(),
        &"A".repeat(10_000),
    ] {
        let request = ListWorkflowsRequest {
            page_token: made_up.into(),
            ..again.clone()
        };
        assert_eq!(failure(list(&tenant, request).await), invalid, "{made_up}");
    }
}

/// Returns a field of a page token by its number in the protobuf message.
fn with_number(page_token: &str, number: i64) -> String {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Token {
        #[prost(bytes = "vec", tag = "1")]
        filters: Vec<u8>,
        #[prost(sint64, tag = "2")]
        number: i64,
        #[prost(bytes = "vec", tag = "3")]
        id: Vec<u8>,
    }
    let mut token = Token::decode(URL_SAFE_NO_PAD.decode(page_token).unwrap().as_slice()).unwrap();
    token.number = number;
    URL_SAFE_NO_PAD.encode(token.encode_to_vec())
}

#[tokio::test]
async fn a_page_token_with_an_impossible_time_is_refused() {
    let (_app, tenant) = App::with_tenant().await;
    for _ in 0..2 {
        tenant.start().await;
    }
    let request = ListWorkflowsRequest {
        page_size: 1,
        ..Default::default()
    };
    let page_token = list(&tenant, request.clone())
        .await
        .unwrap()
        .next_page_token;
    for number in [
        i64::MIN,
        -8_000_000_000_000_000_000,
        300_000_000_000_000_000,
        i64::MAX,
    ] {
        let page_token = with_number(&page_token, number);
        let request = ListWorkflowsRequest {
            page_token,
            ..request.clone()
        };
        assert_eq!(
            failure(list(&tenant, request).await),
            Failure::invalid(&["page_token"])
        );
    }
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let within = |seconds, nanos| ListWorkflowsRequest {
        started_within: Some(Duration { seconds, nanos }),
        ..Default::default()
    };
    let metadata = |value| ListWorkflowsRequest {
        metadata: document(value),
        ..Default::default()
    };
    let bad = [
        (
            "page_size",
            ListWorkflowsRequest {
                page_size: -1,
                ..Default::default()
            },
        ),
        (
            "states[1]",
            ListWorkflowsRequest {
                states: vec![1, 77],
                ..Default::default()
            },
        ),
        (
            "states[0]",
            ListWorkflowsRequest {
                states: vec![0],
                ..Default::default()
            },
        ),
        (
            "workflow_type",
            ListWorkflowsRequest {
                workflow_type: "\0".into(),
                ..Default::default()
            },
        ),
        ("started_within", within(0, 0)),
        ("started_within", within(-1, 0)),
        ("started_within", within(0, -1)),
        ("started_within", within(i64::MAX, 0)),
        ("started_within", within(1, i32::MAX)),
        (
            "metadata",
            ListWorkflowsRequest {
                metadata: document(json!({"a": "\0"})),
                ..Default::default()
            },
        ),
        ("metadata", metadata(json!({"a": vec![1; 17]}))),
        ("metadata", metadata(json!({"a": [[1, [2]], vec![1; 13]]}))),
        ("metadata", metadata(json!({"a": "x".repeat(4096)}))),
    ];
    for (field, request) in bad {
        assert_eq!(
            failure(list(&tenant, request).await),
            Failure::invalid(&[field])
        );
    }
    let largest = ListWorkflowsRequest {
        metadata: document(json!({"a": vec![1; 16]})),
        page_size: i32::MAX,
        ..Default::default()
    };
    assert!(list(&tenant, largest).await.unwrap().workflows.is_empty());
}
