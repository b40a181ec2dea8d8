//! What holds for every RPC, taken from the descriptors of the contract: an RPC
//! that is added without its case here fails these tests.

use std::collections::BTreeSet;

use bridgebook::proto::{self, v1};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{App, Failure, Tenant, failure, raw_call};

/// The methods of all our services: `bridgebook.v1.WorkflowService/GetWorkflow`.
fn methods() -> Vec<String> {
    let descriptors = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let files = descriptors
        .file
        .iter()
        .filter(|file| file.package() == "bridgebook.v1");
    let services = files.flat_map(|file| &file.service);
    services
        .flat_map(|service| {
            let name = service.name();
            service
                .method
                .iter()
                .map(move |method| format!("bridgebook.v1.{name}/{}", method.name()))
        })
        .collect()
}

#[tokio::test]
async fn an_empty_request_is_told_that_it_lacks_the_namespace() {
    let app = App::start().await;
    for method in methods() {
        let failed = failure(raw_call(&app.channel, &method, Vec::new()).await);
        assert_eq!(
            (failed.code, failed.reason.as_str()),
            (Code::InvalidArgument, "INVALID_FIELD")
        );
        assert!(
            failed.fields.contains(&"namespace".to_owned()),
            "{method}: {failed:?}"
        );
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_callers_fault() {
    let app = App::start().await;
    let broken_text = [0x0a, 0x02, 0xff, 0xfe];
    let truncated = [0x0a, 0x7f, 0x61];
    for method in methods() {
        for bytes in [broken_text.as_slice(), truncated.as_slice()] {
            let failed = failure(raw_call(&app.channel, &method, bytes.to_vec()).await);
            let expected = Failure::new(Code::InvalidArgument, "MALFORMED_MESSAGE");
            assert_eq!(failed, expected, "{method}");
        }
    }
}

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
    let tried: BTreeSet<_> = answers
        .iter()
        .map(|(rpc, _)| format!("bridgebook.v1.WorkflowService/{rpc}"))
        .collect();
    assert_eq!(
        tried,
        methods().into_iter().collect(),
        "every RPC has its case"
    );
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

/// A request to start a workflow whose metadata JSON cannot say.
#[derive(Clone, PartialEq, prost::Message)]
struct OddStart {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    correlation_id: String,
    #[prost(string, tag = "3")]
    workflow_type: String,
    #[prost(message, optional, tag = "7")]
    metadata: Option<prost_types::Struct>,
}

#[tokio::test]
async fn numbers_that_json_cannot_say_are_refused() {
    let (app, tenant) = App::with_tenant().await;
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let kind = Some(prost_types::value::Kind::NumberValue(number));
        let list = prost_types::ListValue {
            values: vec![prost_types::Value { kind }],
        };
        let kind = Some(prost_types::value::Kind::ListValue(list));
        let fields = [("a".to_owned(), prost_types::Value { kind })].into();
        let request = OddStart {
            namespace: tenant.namespace.clone(),
            correlation_id: crate::support::new_id(),
            workflow_type: "test".into(),
            metadata: Some(prost_types::Struct { fields }),
        };
        let method = "bridgebook.v1.WorkflowService/StartWorkflow";
        let answer = raw_call(&app.channel, method, request.encode_to_vec()).await;
        assert_eq!(failure(answer), Failure::invalid(&["metadata"]));
    }
}

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let (_app, tenant) = App::with_tenant().await;
    let request = tenant.new_workflow();
    let answer = tenant.client.clone().start_workflow(request).await.unwrap();
    assert!(answer.metadata().contains_key("x-request-id"));
    let refused = tenant
        .client
        .clone()
        .start_workflow(v1::StartWorkflowRequest::default())
        .await;
    let refused = refused.unwrap_err();
    let header = refused
        .metadata()
        .get("x-request-id")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["request_id"], header);
}
