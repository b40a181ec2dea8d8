use bridgebook::proto::v1::{NewStep, RecordStepRequest, RecordStepResponse, StepStatus};
use serde_json::json;
use tonic::Status;

use crate::support::{App, Failure, Tenant, document, failure, new_id, value};

async fn record(tenant: &Tenant, step: Option<NewStep>) -> Result<RecordStepResponse, Status> {
    let request = RecordStepRequest {
        namespace: tenant.namespace.clone(),
        step,
    };
    tenant
        .client
        .clone()
        .record_step(request)
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test]
async fn stores_and_returns_the_row() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let step = NewStep {
        id: new_id(),
        workflow_id: workflow.id.clone(),
        step_name: "hash (BLAKE3) – größer".into(),
        step_order: i32::MAX,
        status: StepStatus::Failed.into(),
        execution_time_ms: Some(i64::MAX),
        step_data: document(json!({"bytes": 17})),
        error_message: Some("no\nsuch file".into()),
    };
    let answer = record(&tenant, Some(step.clone())).await.unwrap();
    let stored = answer.step.unwrap();
    assert!(answer.created);
    assert_eq!((&stored.id, &stored.workflow_id), (&step.id, &workflow.id));
    assert_eq!(
        (&stored.step_name, stored.step_order),
        (&step.step_name, i32::MAX)
    );
    assert_eq!(stored.status(), StepStatus::Failed);
    assert_eq!(stored.execution_time_ms, Some(i64::MAX));
    assert_eq!(value(stored.step_data.clone()), json!({"bytes": 17}));
    assert_eq!(stored.error_message, step.error_message);
    assert_eq!(tenant.get(&workflow).await.steps, [stored]);
}

#[tokio::test]
async fn the_same_id_with_the_same_content_is_stored_once() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let step = NewStep {
        id: new_id(),
        ..tenant.new_step(&workflow, 1)
    };
    let first = record(&tenant, Some(step.clone())).await.unwrap();
    let again = record(&tenant, Some(step.clone())).await.unwrap();
    assert!(first.created && !again.created);
    assert_eq!(first.step, again.step);
    let other = NewStep {
        step_order: 2,
        ..step.clone()
    };
    assert_eq!(
        failure(record(&tenant, Some(other)).await),
        Failure::id_conflict()
    );
    let stranger = app.tenant();
    let theirs = stranger.start().await;
    let foreign = NewStep {
        workflow_id: theirs.id,
        ..step
    };
    assert_eq!(
        failure(record(&stranger, Some(foreign)).await),
        Failure::id_conflict()
    );
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM workflow_steps")
            .await,
        1
    );
}

#[tokio::test]
async fn without_an_id_every_call_appends() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    for _ in 0..2 {
        assert!(
            record(&tenant, Some(tenant.new_step(&workflow, 1)))
                .await
                .unwrap()
                .created
        );
    }
    assert_eq!(tenant.get(&workflow).await.steps.len(), 2);
}

#[tokio::test]
async fn a_missing_or_foreign_workflow_is_not_found() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let missing = NewStep {
        workflow_id: new_id(),
        ..tenant.new_step(&workflow, 1)
    };
    assert_eq!(
        failure(record(&tenant, Some(missing)).await),
        Failure::no_workflow()
    );
    let foreign = Some(tenant.new_step(&workflow, 1));
    assert_eq!(
        failure(record(&app.tenant(), foreign).await),
        Failure::no_workflow()
    );
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM workflow_steps")
            .await,
        0
    );
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let good = tenant.new_step(&workflow, 1);
    let named = |step_name: &str| NewStep {
        step_name: step_name.into(),
        ..good.clone()
    };
    let bad = [
        (
            "step.id",
            NewStep {
                id: "1".into(),
                ..good.clone()
            },
        ),
        (
            "step.workflow_id",
            NewStep {
                workflow_id: String::new(),
                ..good.clone()
            },
        ),
        ("step.step_name", named("")),
        ("step.step_name", named("a\0b")),
        ("step.step_name", named("a\nb")),
        ("step.step_name", named(&"ü".repeat(101))),
        (
            "step.step_order",
            NewStep {
                step_order: -1,
                ..good.clone()
            },
        ),
        (
            "step.status",
            NewStep {
                status: 0,
                ..good.clone()
            },
        ),
        (
            "step.status",
            NewStep {
                status: 42,
                ..good.clone()
            },
        ),
        (
            "step.execution_time_ms",
            NewStep {
                execution_time_ms: Some(-1),
                ..good.clone()
            },
        ),
        (
            "step.step_data",
            NewStep {
                step_data: document(json!({"a": "\0"})),
                ..good.clone()
            },
        ),
        (
            "step.error_message",
            NewStep {
                error_message: Some("\0".into()),
                ..good.clone()
            },
        ),
    ];
    for (field, step) in bad {
        assert_eq!(
            failure(record(&tenant, Some(step)).await),
            Failure::invalid(&[field])
        );
    }
    assert_eq!(
        failure(record(&tenant, None).await),
        Failure::invalid(&["step"])
    );
}
