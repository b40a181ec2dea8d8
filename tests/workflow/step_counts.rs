//! The number of steps in a list of workflows.

use bridgebook::proto::v1::ListWorkflowsRequest;

use crate::support::App;

/// 1000 is the most that is counted.
#[tokio::test]
async fn steps_are_counted_up_to_a_thousand() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let counts = async || {
        let request = ListWorkflowsRequest {
            namespace: tenant.namespace.clone(),
            ..ListWorkflowsRequest::default()
        };
        let page = tenant.client.clone().list_workflows(request).await;
        let row = page.unwrap().into_inner().workflows.remove(0);
        (row.step_count, row.has_more_steps)
    };
    let steps = (0..1000).map(|order| tenant.new_step(&workflow, order));
    tenant.record_steps(steps.collect()).await;
    assert_eq!(counts().await, (1000, false));
    tenant
        .record_steps(vec![tenant.new_step(&workflow, 0)])
        .await;
    assert_eq!(counts().await, (1000, true));
}
