//! What holds for every RPC, taken from the descriptors of the contract: an RPC
//! that is added without its case fails these tests.

use bridgebook::proto::{Rpc, v1};
use prost::Message;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{App, Failure, failure, is_tenant_call, methods, raw_call};

fn is_tenants(method: &str) -> bool {
    let rpc = Rpc::from_path(&format!("/{method}")).unwrap();
    is_tenant_call(rpc)
}

#[tokio::test]
async fn an_empty_request_is_told_that_it_lacks_the_namespace() {
    let app = App::start().await;
    for method in methods().iter().filter(|method| is_tenants(method)) {
        let failed = failure(raw_call(&app.channel, method, Vec::new()).await);
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

/// Those that only read the journal, which everybody may know there.
const READ_RESERVED: &[&str] = &[
    "bridgebook.v1.FsmService/ListTransitions",
    "bridgebook.v1.FsmService/GetTransitionStats",
];

/// A request of which nothing but the namespace is said.
#[derive(Clone, PartialEq, prost::Message)]
struct OnlyNamespace {
    #[prost(string, tag = "1")]
    namespace: String,
}

#[tokio::test]
async fn nobody_gets_into_a_namespace_of_the_services_own() {
    let app = App::start().await;
    let namespace = "bridgebook.registry".to_owned();
    let request = OnlyNamespace { namespace }.encode_to_vec();
    for method in methods().iter().filter(|method| is_tenants(method)) {
        let failed = failure(raw_call(&app.channel, method, request.clone()).await);
        let is_named = failed.fields.contains(&"namespace".to_owned());
        let may_read = READ_RESERVED.contains(&method.as_str());
        assert_eq!(is_named, !may_read, "{method}: {failed:?}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_callers_fault() {
    let app = App::start().await;
    let broken_text = [0x0a, 0x02, 0xff, 0xfe];
    let truncated = [0x0a, 0x7f, 0x61];
    for method in methods() {
        // Where there is no text, broken text is an unknown field.
        let broken_text = Some(broken_text.as_slice()).filter(|_| is_tenants(&method));
        for bytes in broken_text.into_iter().chain([truncated.as_slice()]) {
            let failed = failure(raw_call(&app.channel, &method, bytes.to_vec()).await);
            let expected = Failure::new(Code::InvalidArgument, "MALFORMED_MESSAGE");
            assert_eq!(failed, expected, "{method}");
        }
    }
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
