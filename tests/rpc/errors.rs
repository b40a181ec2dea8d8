//! The texts of errors, for all RPCs alike.

use bridgebook::proto::{Rpc, v1};
use prost::Message;
use serde_json::{Value, json};
use tonic_types::StatusExt;

use crate::{
    samples::{Rows, call, sample},
    support::{App, contract, document, failure, new_id, raw_call},
};

#[tokio::test]
async fn a_row_that_is_not_found_is_named_with_its_namespace() {
    let app = App::start().await;
    let rows = Rows::unmade("team-a");
    let mut walked = 0;
    for rpc in contract::tenant_rpcs() {
        let sample = sample(rpc);
        let Some(reason) = sample.missing else {
            continue;
        };
        let is_node = reason == "NODE_NOT_FOUND";
        let scope = if is_node { "" } else { " in namespace team-a" };
        let text = match call(&app, rpc, None, &rows.fill(&sample.request(0))).await {
            Err(status) => status.message().to_owned(),
            // A batch fails item by item.
            Ok(answer) => answer.to_string(),
        };
        let expected = format!(" not found{scope}");
        assert!(text.contains(&expected), "{rpc:?}: {text}");
        // The registry is shared.
        assert!(
            !is_node || !text.contains("in namespace"),
            "{rpc:?}: {text}"
        );
        walked += 1;
    }
    assert!(walked > 10, "{walked}");
}

#[tokio::test]
async fn a_missing_row_has_the_words_of_its_kind() {
    let app = App::start().await;
    let id = new_id();
    for (rpc, request, expected) in [
        (
            Rpc::WorkflowServiceGetWorkflow,
            json!({"namespace": "demo", "id": id}),
            format!("workflow {id} not found in namespace demo"),
        ),
        (
            Rpc::WorkflowServiceGetWorkflow,
            json!({"namespace": "demo", "correlation_id": id}),
            format!("workflow with correlation_id {id} not found in namespace demo"),
        ),
        (
            Rpc::FsmServiceGetMachine,
            json!({"namespace": "demo", "entity_type": "order"}),
            "machine order not found in namespace demo".to_owned(),
        ),
        (
            Rpc::RegistryServiceGetNode,
            json!({"namespace": "demo", "node_id": "a"}),
            "node a not found".to_owned(),
        ),
        (
            Rpc::AdminServiceRevokeToken,
            json!({"id": id}),
            format!("token {id} not found"),
        ),
    ] {
        let refused = call(&app, rpc, None, &request).await.unwrap_err();
        assert_eq!(refused.message(), expected);
    }
}

/// Starts a workflow, and returns the message of the error.
async fn refused_start(app: &App, metadata: Value) -> String {
    let request = v1::StartWorkflowRequest {
        namespace: "team-a".into(),
        correlation_id: new_id(),
        workflow_type: "test".into(),
        metadata: document(metadata),
        ..v1::StartWorkflowRequest::default()
    };
    let method = contract::method(Rpc::WorkflowServiceStartWorkflow);
    let refused = raw_call(&app.channel, method, request.encode_to_vec()).await;
    refused.unwrap_err().message().to_owned()
}

#[tokio::test]
async fn a_fault_in_a_document_is_located_and_a_size_is_compared_with_its_limit() {
    let app = App::start().await;
    let text = refused_start(&app, json!({"jobs": [{"id": 1}, {"na/me": "a\0"}]})).await;
    let expected = "metadata must not contain a NUL character; the key or value at \
                    /jobs/1/na~1me has one";
    assert_eq!(text, expected);

    let deep = (0..70).fold(json!(1), |inner, _| json!({ "a": inner }));
    let text = refused_start(&app, json!({"flat": {}, "deep": deep})).await;
    let expected = "metadata must not nest deeper than 64 levels; the value at /deep/a/a/a/";
    assert!(text.starts_with(expected), "{text}");

    let text = refused_start(&app, json!({"text": "x".repeat(1_500_000)})).await;
    let expected = "metadata must be at most 1048576 bytes of JSON text, got at least 1500006";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn the_message_counts_violations_that_are_not_listed_too() {
    let app = App::start().await;
    for (count, prefix) in [
        (1, ""),
        (2, "2 violations: "),
        (21, "21 violations: "),
        (1000, "1000 violations: "),
    ] {
        let request = v1::ListWorkflowsRequest {
            namespace: "team-a".into(),
            states: vec![99; count],
            ..v1::ListWorkflowsRequest::default()
        };
        let method = contract::method(Rpc::WorkflowServiceListWorkflows);
        let refused = raw_call(&app.channel, method, request.encode_to_vec()).await;
        let refused = refused.unwrap_err();
        let details = refused.get_error_details();
        let listed = details.bad_request().unwrap().field_violations.len();
        assert!(
            listed == count.min(20) || (10..20).contains(&listed),
            "{listed}"
        );
        let start = format!("{prefix}states[0] must be a WorkflowState (WORKFLOW_STATE_PENDING,");
        assert!(
            refused.message().starts_with(&start),
            "{}",
            refused.message()
        );
    }
}

/// A bad number is not hidden by a set that has all values before it.
#[tokio::test]
async fn every_item_of_a_set_is_checked() {
    let app = App::start().await;
    let request = v1::ListWorkflowsRequest {
        namespace: "team-a".into(),
        states: vec![1, 2, 3, 4, 5, 1, 99, 0],
        ..v1::ListWorkflowsRequest::default()
    };
    let method = contract::method(Rpc::WorkflowServiceListWorkflows);
    let refused = raw_call(&app.channel, method, request.encode_to_vec()).await;
    assert_eq!(failure(refused).fields, ["states[6]", "states[7]"]);
}

/// A caller can use the names in a request.
#[tokio::test]
async fn errors_name_the_values_of_enums_as_the_contract_does() {
    let app = App::start().await;
    let id = new_id();
    let start = json!({
        "namespace": "demo", "correlation_id": id, "id": id, "workflow_type": "t",
    });
    let as_state = |state: &str| {
        let mut request = start.clone();
        request["current_state"] = state.into();
        request
    };
    let rpc = Rpc::WorkflowServiceStartWorkflow;
    let completed = as_state("WORKFLOW_STATE_COMPLETED");
    let refused = call(&app, rpc, None, &completed).await.unwrap_err();
    let expected = "current_state must be WORKFLOW_STATE_PENDING or WORKFLOW_STATE_PROCESSING, \
                    got WORKFLOW_STATE_COMPLETED";
    assert_eq!(refused.message(), expected);
    call(&app, rpc, None, &start).await.unwrap();
    let transition = json!({
        "namespace": "demo", "workflow_id": id, "to_state": "WORKFLOW_STATE_COMPLETED",
    });
    let rpc = Rpc::WorkflowServiceTransitionWorkflow;
    let refused = call(&app, rpc, None, &transition).await.unwrap_err();
    let details = refused.get_error_details();
    let allowed = details.error_info().unwrap().metadata["allowed_states"].clone();
    let first = allowed.split(',').next().unwrap();
    let mut possible = transition.clone();
    possible["to_state"] = first.into();
    call(&app, rpc, None, &possible).await.unwrap();

    let mut late = transition.clone();
    late["expected_state"] = "WORKFLOW_STATE_PENDING".into();
    let refused = call(&app, rpc, None, &late).await.unwrap_err();
    let details = refused.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    assert_eq!(metadata["expected_state"], "WORKFLOW_STATE_PENDING");
    assert_eq!(metadata["current_state"], first);
}
