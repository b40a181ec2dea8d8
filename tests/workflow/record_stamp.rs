use bridgebook::proto::v1::{NewStamp, RecordStampRequest, RecordStampResponse, Workflow};
use serde_json::json;
use tonic::Status;

use crate::support::{App, Failure, Tenant, document, failure, new_id, value};

async fn record(tenant: &Tenant, stamp: Option<NewStamp>) -> Result<RecordStampResponse, Status> {
    let request = RecordStampRequest {
        namespace: tenant.namespace.clone(),
        stamp,
    };
    tenant
        .client
        .clone()
        .record_stamp(request)
        .await
        .map(tonic::Response::into_inner)
}

fn new_stamp(workflow: &Workflow) -> NewStamp {
    NewStamp {
        workflow_id: workflow.id.clone(),
        file_hash: "0123456789abcdef".into(),
        ..NewStamp::default()
    }
}

#[tokio::test]
async fn stores_and_returns_the_row() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let stamp = NewStamp {
        id: new_id(),
        file_hash: "f".repeat(128),
        stamp_data: document(json!({"path": "a/b", "bytes": 17})),
        ..new_stamp(&workflow)
    };
    let answer = record(&tenant, Some(stamp.clone())).await.unwrap();
    let stored = answer.stamp.unwrap();
    assert!(answer.created);
    assert_eq!(
        (&stored.id, &stored.file_hash),
        (&stamp.id, &stamp.file_hash)
    );
    assert_eq!(stored.workflow_id, Some(workflow.id.clone()));
    assert_eq!(
        value(stored.stamp_data.clone()),
        json!({"path": "a/b", "bytes": 17})
    );
    assert_eq!(tenant.get(&workflow).await.stamps, [stored]);
}

/// As in PostgreSQL's jsonb, which has no negative zero.
#[tokio::test]
async fn negative_zero_is_zero_and_makes_no_other_content() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let with_zero = |zero: f64| NewStamp {
        id: workflow.id.clone(),
        stamp_data: document(json!({"zero": zero, "list": [zero]})),
        ..new_stamp(&workflow)
    };
    let first = record(&tenant, Some(with_zero(-0.0))).await.unwrap();
    let retry = record(&tenant, Some(with_zero(0.0))).await.unwrap();
    assert!(first.created && !retry.created);
    for answer in [first, retry] {
        let stored = value(answer.stamp.unwrap().stamp_data);
        assert_eq!(stored, json!({"zero": 0, "list": [0]}));
        assert!(stored["zero"].as_f64().unwrap().is_sign_positive());
    }
}

#[tokio::test]
async fn a_stamp_needs_no_workflow() {
    let (_app, tenant) = App::with_tenant().await;
    let stamp = NewStamp {
        file_hash: "a".into(),
        ..NewStamp::default()
    };
    let answer = record(&tenant, Some(stamp)).await.unwrap();
    assert_eq!(answer.stamp.unwrap().workflow_id, None);
}

#[tokio::test]
async fn the_same_id_with_the_same_content_is_stored_once() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let stamp = NewStamp {
        id: new_id(),
        ..new_stamp(&workflow)
    };
    let first = record(&tenant, Some(stamp.clone())).await.unwrap();
    let again = record(&tenant, Some(stamp.clone())).await.unwrap();
    assert!(first.created && !again.created);
    assert_eq!(first.stamp, again.stamp);
    let other = NewStamp {
        file_hash: "b".into(),
        ..stamp.clone()
    };
    assert_eq!(
        failure(record(&tenant, Some(other)).await),
        Failure::id_conflict()
    );
    let foreign = NewStamp {
        workflow_id: String::new(),
        ..stamp
    };
    assert_eq!(
        failure(record(&app.tenant(), Some(foreign)).await),
        Failure::id_conflict()
    );
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM metadata_stamps")
            .await,
        1
    );
}

#[tokio::test]
async fn a_missing_or_foreign_workflow_is_not_found() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let missing = NewStamp {
        workflow_id: new_id(),
        ..new_stamp(&workflow)
    };
    assert_eq!(
        failure(record(&tenant, Some(missing)).await),
        Failure::no_workflow()
    );
    let foreign = Some(new_stamp(&workflow));
    assert_eq!(
        failure(record(&app.tenant(), foreign).await),
        Failure::no_workflow()
    );
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM metadata_stamps")
            .await,
        0
    );
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let good = new_stamp(&workflow);
    let hashed = |hash: &str| NewStamp {
        file_hash: hash.into(),
        ..good.clone()
    };
    let bad = [
        (
            "stamp.id",
            NewStamp {
                id: "1".into(),
                ..good.clone()
            },
        ),
        (
            "stamp.workflow_id",
            NewStamp {
                workflow_id: "x".into(),
                ..good.clone()
            },
        ),
        ("stamp.file_hash", hashed("")),
        ("stamp.file_hash", hashed("a\0b")),
        ("stamp.file_hash", hashed("a b")),
        ("stamp.file_hash", hashed(&"f".repeat(129))),
        (
            "stamp.stamp_data",
            NewStamp {
                stamp_data: document(json!({"a": "\0"})),
                ..good.clone()
            },
        ),
    ];
    for (field, stamp) in bad {
        assert_eq!(
            failure(record(&tenant, Some(stamp)).await),
            Failure::invalid(&[field])
        );
    }
    assert_eq!(
        failure(record(&tenant, None).await),
        Failure::invalid(&["stamp"])
    );
}
