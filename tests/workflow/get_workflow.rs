use bridgebook::proto::v1::{
    BatchRecordStampsRequest, GetWorkflowRequest, GetWorkflowResponse, ListStampsRequest,
    ListStepsRequest, NewStamp, NewStep, RecordStampRequest, get_workflow_request::Key,
};
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;
use prost::Message;
use serde_json::json;
use tonic::Status;

use crate::support::{App, Failure, Tenant, document, failure, new_id, raw_call};

async fn get(tenant: &Tenant, key: Option<Key>) -> Result<GetWorkflowResponse, Status> {
    let request = GetWorkflowRequest {
        namespace: tenant.namespace.clone(),
        key,
        include_stamps: false,
    };
    tenant
        .client
        .clone()
        .get_workflow(request)
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test]
async fn reads_by_either_id_with_the_steps_in_order() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let steps = [3, 1, 2].map(|order| tenant.new_step(&workflow, order));
    tenant.record_steps(steps.to_vec()).await;
    let by_id = get(&tenant, Some(Key::Id(workflow.id.clone())))
        .await
        .unwrap();
    let by_name = Key::CorrelationId(workflow.correlation_id.to_uppercase());
    assert_eq!(by_id, get(&tenant, Some(by_name)).await.unwrap());
    assert_eq!(by_id.workflow.unwrap(), workflow);
    let orders: Vec<_> = by_id.steps.iter().map(|step| step.step_order).collect();
    assert_eq!(orders, [1, 2, 3]);
    assert!(by_id.stamps.is_empty() && by_id.next_steps_page_token.is_empty());
}

#[tokio::test]
async fn stamps_are_included_on_request_newest_first() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    for hash in ["a", "b", "c"] {
        let stamp = NewStamp {
            workflow_id: workflow.id.clone(),
            file_hash: hash.into(),
            ..NewStamp::default()
        };
        let request = RecordStampRequest {
            namespace: tenant.namespace.clone(),
            stamp: Some(stamp),
        };
        tenant.client.clone().record_stamp(request).await.unwrap();
    }
    let without = get(&tenant, Some(Key::Id(workflow.id.clone())))
        .await
        .unwrap();
    assert!(without.stamps.is_empty());
    let with = tenant.get(&workflow).await;
    let hashes: Vec<_> = with
        .stamps
        .iter()
        .map(|stamp| stamp.file_hash.as_str())
        .collect();
    assert_eq!(hashes, ["c", "b", "a"]);
}

#[tokio::test]
async fn a_missing_or_foreign_workflow_is_not_found() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let stranger = app.tenant();
    for key in [
        Key::Id(new_id()),
        Key::CorrelationId(new_id()),
        Key::Id(workflow.id.clone()),
        Key::CorrelationId(workflow.correlation_id.clone()),
    ] {
        assert_eq!(
            failure(get(&stranger, Some(key)).await),
            Failure::no_workflow()
        );
    }
}

#[tokio::test]
async fn concurrent_reads_each_get_their_workflow() {
    let (_app, tenant) = App::with_tenant().await;
    let workflows = join_all((0..100).map(|_| tenant.start())).await;
    let reads = workflows
        .iter()
        .map(|workflow| get(&tenant, Some(Key::Id(workflow.id.clone()))));
    for (read, workflow) in join_all(reads).await.into_iter().zip(&workflows) {
        assert_eq!(read.unwrap().workflow.as_ref(), Some(workflow));
    }
}

/// Together the workflows are larger than what a batch reads.
#[tokio::test]
async fn concurrent_reads_of_large_workflows_each_get_their_workflow() {
    let (app, tenant) = App::with_tenant().await;
    let workflows = join_all((0..40).map(|_| tenant.start())).await;
    let grow = "UPDATE workflow_executions
                   SET metadata = jsonb_build_object('id', id, 'text', repeat('x', 2900000))";
    let mut database = app.schema.connect().await;
    database.batch_execute(grow).await.unwrap();
    let reads = workflows.iter().map(|workflow| {
        let request = GetWorkflowRequest {
            namespace: tenant.namespace.clone(),
            key: Some(Key::Id(workflow.id.clone())),
            include_stamps: false,
        };
        let method = "bridgebook.v1.WorkflowService/GetWorkflow";
        raw_call(&tenant.channel, method, request.encode_to_vec())
    });
    for (read, workflow) in join_all(reads).await.into_iter().zip(&workflows) {
        let read = read.unwrap();
        assert!(read.len() > 2_900_000);
        // The id of the row, and that in its metadata.
        let text = String::from_utf8_lossy(&read);
        assert_eq!(text.matches(workflow.id.as_str()).count(), 2);
    }
}

#[tokio::test]
async fn the_list_rpcs_continue_where_the_response_ends() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let steps: Vec<_> = (0..1001)
        .map(|order| tenant.new_step(&workflow, order))
        .collect();
    let (most, last) = steps.split_at(1000);
    tenant.record_steps(most.to_vec()).await;
    let read = get(&tenant, Some(Key::Id(workflow.id.clone())))
        .await
        .unwrap();
    assert_eq!(
        (read.steps.len(), read.next_steps_page_token.as_str()),
        (1000, "")
    );
    tenant.record_steps(last.to_vec()).await;
    let read = get(&tenant, Some(Key::Id(workflow.id.clone())))
        .await
        .unwrap();
    assert_eq!(read.steps.len(), 1000);
    let request = ListStepsRequest {
        namespace: tenant.namespace.clone(),
        page_token: read.next_steps_page_token,
        workflow_id: workflow.id.clone(),
        ..ListStepsRequest::default()
    };
    let rest = tenant
        .client
        .clone()
        .list_steps(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        rest.steps
            .iter()
            .map(|step| step.step_order)
            .collect::<Vec<_>>(),
        [1000]
    );
    assert!(rest.next_page_token.is_empty());
}

/// Returns the number of steps and stamps that GetWorkflow returns of `count` of each.
async fn filled(tenant: &Tenant, count: i32, data: serde_json::Value) -> (usize, usize) {
    let workflow = tenant.start().await;
    let data = document(data);
    let steps = (0..count).map(|order| NewStep {
        step_data: data.clone(),
        ..tenant.new_step(&workflow, order)
    });
    let stamps = (0..count).map(|_| NewStamp {
        workflow_id: workflow.id.clone(),
        file_hash: "a".into(),
        stamp_data: data.clone(),
        ..NewStamp::default()
    });
    let (steps, stamps): (Vec<_>, Vec<_>) = steps.zip(stamps).unzip();
    for (steps, stamps) in steps.chunks(200).zip(stamps.chunks(200)) {
        tenant.record_steps(steps.to_vec()).await;
        let request = BatchRecordStampsRequest {
            namespace: tenant.namespace.clone(),
            stamps: stamps.to_vec(),
        };
        let recorded = tenant.client.clone().batch_record_stamps(request).await;
        assert!(format!("{recorded:?}").contains("Response"));
    }
    let without = get(tenant, Some(Key::Id(workflow.id.clone()))).await;
    let steps = without.unwrap().steps.len();
    let with = tenant.get(&workflow).await;
    assert_eq!(with.steps.len(), steps);
    assert_eq!(
        with.next_steps_page_token.is_empty(),
        steps == count as usize
    );
    let stamps = with.stamps.len();
    assert_eq!(
        with.next_stamps_page_token.is_empty(),
        stamps == count as usize
    );
    (steps, stamps)
}

/// A page of steps and stamps is about 2 MiB large. Steps come first, and a stamp that does
/// not fit is returned if it is the only one.
#[tokio::test]
async fn the_first_steps_and_stamps_fill_the_page() {
    let (_app, tenant) = App::with_tenant().await;
    // PostgreSQL compresses the first kind of document to almost nothing, and not the second.
    let random: String = std::iter::repeat_with(new_id).take(280).collect();
    for text in ["y".repeat(10_000), random[..10_000].to_owned()] {
        let text = json!({ "x": text });
        assert_eq!(filled(&tenant, 105, text.clone()).await, (105, 95));
        assert_eq!(filled(&tenant, 250, text).await, (200, 1));
    }
    // 1 MB as protobuf, and 285 kB as text.
    let numbers = json!({"n": vec![1; 95_000]});
    assert_eq!(filled(&tenant, 3, numbers).await, (2, 1));
}

#[tokio::test]
async fn large_steps_and_stamps_fit_into_a_message() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let large = document(json!({ "x": "y".repeat(700 * 1024) }));
    for order in 0..4 {
        let mut step = tenant.new_step(&workflow, order);
        step.step_data.clone_from(&large);
        tenant.record_steps(vec![step]).await;
        let stamp = NewStamp {
            workflow_id: workflow.id.clone(),
            file_hash: "a".into(),
            stamp_data: large.clone(),
            ..NewStamp::default()
        };
        let request = RecordStampRequest {
            namespace: tenant.namespace.clone(),
            stamp: Some(stamp),
        };
        tenant.client.clone().record_stamp(request).await.unwrap();
    }
    let read = tenant.get(&workflow).await;
    assert_eq!((read.steps.len(), read.stamps.len()), (2, 1));
    let mut request = ListStampsRequest {
        namespace: tenant.namespace.clone(),
        page_token: read.next_stamps_page_token,
        workflow_id: workflow.id.to_uppercase(),
        ..ListStampsRequest::default()
    };
    let mut rest = 0;
    while !request.page_token.is_empty() {
        let page = tenant
            .client
            .clone()
            .list_stamps(request.clone())
            .await
            .unwrap()
            .into_inner();
        rest += page.stamps.len();
        request.page_token = page.next_page_token;
    }
    assert_eq!(rest, 3);
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    for (field, key) in [
        ("key", None),
        ("id", Some(Key::Id(String::new()))),
        ("id", Some(Key::Id("a\0".into()))),
        ("correlation_id", Some(Key::CorrelationId("7".into()))),
    ] {
        assert_eq!(failure(get(&tenant, key).await), Failure::invalid(&[field]));
    }
}
