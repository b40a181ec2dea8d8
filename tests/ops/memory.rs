//! The memory of the process.

use bridgebook::proto::v1::{BatchRecordStepsRequest, NewStep, StartWorkflowRequest};
use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Schema, Server, document, eventually, tenant_on};

/// What the process may keep of the memory that large documents took, in KiB.
const KEPT_KIB: usize = 64 * 1024;

#[tokio::test]
async fn the_memory_of_large_documents_is_given_back() {
    let schema = Schema::create().await;
    let server = Server::spawn(&["--database-url", &schema.url()]);
    let tenant = tenant_on(server.serving().await);
    tenant.start().await;
    let before = server.resident_kib();
    let large = document(json!({"text": "x".repeat(1_000_000)}));
    let mut peak = before;
    for _ in 0..4 {
        let request = StartWorkflowRequest {
            metadata: large.clone(),
            ..tenant.new_workflow()
        };
        let workflow = tenant.start_as(request).await;
        join_all((0..100).map(|_| tenant.get(&workflow))).await;
        peak = peak.max(server.resident_kib());
    }
    let after = eventually("the memory is given back", || async {
        let now = server.resident_kib();
        (now < before + KEPT_KIB).then_some(now)
    })
    .await;
    println!("before {before} KiB, peak {peak} KiB, after {after} KiB");
}

/// What the service may take for a request of 3 MiB, in KiB. As trees of maps, the documents would take
/// 150 MiB.
const TAKEN_KIB: usize = 64 * 1024;

#[tokio::test]
async fn a_request_with_many_small_values_takes_little_more_than_its_bytes() {
    let schema = Schema::create().await;
    let server = Server::spawn(&["--database-url", &schema.url()]);
    let tenant = tenant_on(server.serving().await);
    let workflow = tenant.start().await;
    let before = server.peak_kib();
    // Each object takes 12 bytes in the message.
    let objects = document(json!({"list": vec![json!({"": null}); 80_000]}));
    let steps = (0..3).map(|order| NewStep {
        step_data: objects.clone(),
        ..tenant.new_step(&workflow, order)
    });
    let request = BatchRecordStepsRequest {
        namespace: tenant.namespace.clone(),
        steps: steps.collect(),
    };
    let answer = tenant.client.clone().batch_record_steps(request).await;
    assert_eq!(answer.unwrap().into_inner().results.len(), 3);
    let after = server.peak_kib();
    println!("before {before} KiB, after {after} KiB");
    assert!(after < before + TAKEN_KIB, "{before} KiB, then {after} KiB");
}
