//! What every RPC answers to another tenant.

use bridgebook::proto::v1;
use tonic::Status;

use crate::support::{App, Failure, Tenant, assert_complete, failure};

/// What every method that can name a row of another tenant answers to it.
async fn with_foreign_ids(
    own: &Tenant,
    foreign: &v1::Workflow,
) -> Vec<(&'static str, Result<(), Status>)> {
    let namespace = own.namespace.clone();
    let workflow_id = foreign.id.clone();
    let mut client = own.client.clone();
    let step = own.new_step(foreign, 1);
    let stamp = v1::NewStamp {
        workflow_id: workflow_id.clone(),
        file_hash: "a".into(),
        ..Default::default()
    };
    let steps = v1::BatchRecordStepsRequest {
        namespace: namespace.clone(),
        steps: vec![step.clone()],
    };
    let steps = client
        .batch_record_steps(steps)
        .await
        .map(|answer| answer.into_inner().results);
    let stamps = v1::BatchRecordStampsRequest {
        namespace: namespace.clone(),
        stamps: vec![stamp.clone()],
    };
    let stamps = client
        .batch_record_stamps(stamps)
        .await
        .map(|answer| answer.into_inner().results);
    let stamps_of = v1::ListStampsRequest {
        namespace: namespace.clone(),
        workflow_id: workflow_id.clone(),
        ..Default::default()
    };
    let key = Some(v1::get_workflow_request::Key::Id(workflow_id.clone()));
    let deletion = v1::DeleteWorkflowRequest {
        namespace: namespace.clone(),
        workflow_id: workflow_id.clone(),
        allow_missing: false,
    };
    let list = v1::ListWorkflowsRequest {
        namespace: namespace.clone(),
        ..Default::default()
    };
    let steps_of = v1::ListStepsRequest {
        namespace: namespace.clone(),
        workflow_id,
        ..Default::default()
    };
    let start = v1::StartWorkflowRequest {
        correlation_id: foreign.correlation_id.clone(),
        ..own.new_workflow()
    };
    let get = v1::GetWorkflowRequest {
        namespace: namespace.clone(),
        key,
        include_stamps: true,
    };
    vec![
        (
            "StartWorkflow",
            client.start_workflow(start).await.map(drop),
        ),
        (
            "TransitionWorkflow",
            client
                .transition_workflow(own.to(foreign, v1::WorkflowState::Processing))
                .await
                .map(drop),
        ),
        ("GetWorkflow", client.get_workflow(get).await.map(drop)),
        (
            "DeleteWorkflow",
            client.delete_workflow(deletion).await.map(drop),
        ),
        (
            "RecordStep",
            client
                .record_step(v1::RecordStepRequest {
                    namespace: namespace.clone(),
                    step: Some(step),
                })
                .await
                .map(drop),
        ),
        (
            "BatchRecordSteps",
            steps.map(|results| {
                assert!(matches!(
                    results[0].result,
                    Some(v1::record_step_result::Result::Error(_))
                ))
            }),
        ),
        ("ListSteps", client.list_steps(steps_of).await.map(drop)),
        (
            "RecordStamp",
            client
                .record_stamp(v1::RecordStampRequest {
                    namespace,
                    stamp: Some(stamp),
                })
                .await
                .map(drop),
        ),
        (
            "BatchRecordStamps",
            stamps.map(|results| {
                assert!(matches!(
                    results[0].result,
                    Some(v1::record_stamp_result::Result::Error(_))
                ))
            }),
        ),
        (
            "ListWorkflows",
            client
                .list_workflows(list)
                .await
                .map(|answer| assert!(answer.into_inner().workflows.is_empty())),
        ),
        (
            "ListStamps",
            client
                .list_stamps(stamps_of)
                .await
                .map(|answer| assert!(answer.into_inner().stamps.is_empty())),
        ),
    ]
}

#[tokio::test]
async fn another_tenants_rows_can_neither_be_seen_nor_changed() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    tenant
        .record_steps(vec![tenant.new_step(&workflow, 1)])
        .await;
    let before = tenant.get(&workflow).await;
    let answers = with_foreign_ids(&app.tenant(), &workflow).await;
    assert_complete("WorkflowService", answers.iter().map(|(rpc, _)| *rpc));
    for (rpc, answer) in answers {
        match (rpc, answer) {
            ("StartWorkflow", answer) => assert_eq!(failure(answer), Failure::id_conflict()),
            // They answer, with nothing of it.
            ("ListWorkflows" | "ListStamps" | "BatchRecordSteps" | "BatchRecordStamps", answer) => {
                answer.unwrap();
            }
            (_, answer) => assert_eq!(failure(answer), Failure::no_workflow(), "{rpc}"),
        }
    }
    assert_eq!(tenant.get(&workflow).await, before);
}
