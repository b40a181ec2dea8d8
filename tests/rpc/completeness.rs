//! Rules that hold for every RPC of the contract. They are tested with the samples and the
//! descriptors, so they cover a new RPC without a change here.

use bridgebook::proto::{Rpc, v1};
use prost::Message;
use prost_reflect::DynamicMessage;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    samples::{Rows, call, fill, sample, unused},
    support::{App, Failure, contract, failure, raw_call},
};

#[tokio::test]
async fn an_empty_request_is_refused_with_every_required_field() {
    let app = App::start().await;
    for rpc in Rpc::ALL {
        let answer = raw_call(&app.channel, contract::method(*rpc), Vec::new()).await;
        let required = contract::required(*rpc);
        if required.is_empty() {
            answer.unwrap_or_else(|status| panic!("{rpc:?}: {status:?}"));
            continue;
        }
        let required: Vec<_> = required.iter().map(String::as_str).collect();
        let mut failed = failure(answer);
        failed.fields.sort();
        assert_eq!(failed, Failure::invalid(&required), "{rpc:?}");
    }
}

#[tokio::test]
async fn a_reserved_namespace_is_refused_except_to_readers_of_its_journal() {
    let app = App::start().await;
    let request = json!({"namespace": "bridgebook.registry"});
    for rpc in contract::tenant_rpcs() {
        let answer = call(&app, rpc, None, &request).await;
        // A stream needs no other field.
        let failed = answer.is_err().then(|| failure(answer));
        let fields = failed.as_ref().map_or(&[][..], |it| &it.fields);
        let is_refused = fields.contains(&"namespace".to_owned());
        let reads_reserved = sample(rpc).reads_reserved;
        assert_eq!(is_refused, !reads_reserved, "{rpc:?}: {failed:?}");
    }
}

#[tokio::test]
async fn malformed_bytes_are_invalid_argument() {
    let app = App::start().await;
    let broken_text = [0x0a, 0x02, 0xff, 0xfe];
    let truncated = [0x0a, 0x7f, 0x61];
    let tenant_rpcs: Vec<_> = contract::tenant_rpcs().collect();
    for rpc in Rpc::ALL {
        // In other requests, field 1 is not a string.
        let broken_text = Some(broken_text.as_slice()).filter(|_| tenant_rpcs.contains(rpc));
        for bytes in broken_text.into_iter().chain([truncated.as_slice()]) {
            let method = contract::method(*rpc);
            let failed = failure(raw_call(&app.channel, method, bytes.to_vec()).await);
            let expected = Failure::new(Code::InvalidArgument, "MALFORMED_MESSAGE");
            assert_eq!(failed, expected, "{rpc:?}");
        }
    }
}

#[tokio::test]
async fn rows_of_another_tenant_are_not_found() {
    let app = App::start().await;
    let holder = Rows::make(&app, "holder", None).await;
    for rpc in contract::tenant_rpcs() {
        let sample = sample(rpc);
        let variants = sample.each_variant();
        for bits in variants.filter(|bits| sample.always_valid(*bits) == *bits) {
            let (mut names_row, mut names_position) = (false, false);
            let request = fill(
                &sample.request(bits),
                &mut |mark, kind| match (mark, kind) {
                    ('~', text) => text.to_owned(),
                    (_, "namespace") => "stranger".into(),
                    (_, "page") => String::new(),
                    (_, "position" | "origin") => {
                        names_position = true;
                        holder.value(rpc, kind)
                    }
                    ('$' | '@', kind) => {
                        names_row = true;
                        holder.value(rpc, kind)
                    }
                    (_, kind) => unused(kind),
                },
            );
            let is_refused = names_row && request.get("allow_missing").is_none();
            let missing = sample.missing.filter(|_| is_refused);
            let answer = call(&app, rpc, None, &request).await;
            if names_position {
                // A position tells its namespace.
                assert_eq!(failure(answer).reason, "INVALID_FIELD", "{rpc:?}");
                continue;
            }
            let is_public = sample.is_public && request.get("owner").is_none();
            assert_finds_nothing(rpc, is_public, missing, answer, &holder);
        }
    }
}

/// Fails unless an answer is the error for a missing row, or has no row of the holder.
fn assert_finds_nothing(
    rpc: Rpc,
    is_public: bool,
    missing: Option<&str>,
    answer: Result<DynamicMessage, Status>,
    holder: &Rows,
) {
    match (answer, missing) {
        (Err(status), Some(reason)) => {
            let expected = Failure::new(Code::NotFound, reason);
            assert_eq!(failure::<()>(Err(status)), expected, "{rpc:?}");
        }
        (Err(status), None) => panic!("{rpc:?}: {status:?}"),
        // A batch fails item by item.
        (Ok(answer), Some(reason)) => {
            let text = answer.to_string();
            assert!(text.contains(reason), "{rpc:?}: {text}");
        }
        (Ok(answer), None) => {
            let bytes = String::from_utf8_lossy(&answer.encode_to_vec()).into_owned();
            let finds = holder.ids().any(|id| bytes.contains(id.as_str()));
            assert_eq!(finds, is_public, "{rpc:?}: {answer}");
        }
    }
}

/// A StartWorkflow request with numbers that JSON cannot represent.
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
async fn numbers_that_json_cannot_represent_are_refused() {
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
