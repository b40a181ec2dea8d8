use bridgebook::proto::v1::{MetadataUpdate, UpsertBridgeStateRequest};
use futures_util::future::join_all;
use serde_json::json;
use tonic::Code;

use super::{bridge, get, history, new_bridge, totals, upsert};
use crate::support::{App, Failure, document, failure, new_id, value};

#[tokio::test]
async fn stores_and_returns_the_row() {
    let (_app, tenant) = App::with_tenant().await;
    let id = new_id();
    let time = prost_types::Timestamp {
        seconds: 1_700_000_000,
        nanos: 5_000,
    };
    let request = UpsertBridgeStateRequest {
        total_workflows_processed: Some(i64::MAX),
        total_items_aggregated: Some(0),
        aggregation_metadata: document(json!({"by": "me"})),
        last_aggregation_timestamp: Some(time),
        transition_event: "boot".into(),
        ..bridge(&tenant, &id)
    };
    let answer = upsert(&tenant, request).await.unwrap();
    assert!(answer.applied);
    let stored = answer.bridge_state.unwrap();
    assert_eq!(
        (
            stored.total_workflows_processed,
            stored.total_items_aggregated
        ),
        (i64::MAX, 0)
    );
    assert_eq!(
        value(stored.aggregation_metadata.clone()),
        json!({"by": "me"})
    );
    assert_eq!(stored.last_aggregation_timestamp, Some(time));
    assert_eq!(
        (stored.current_fsm_state.as_str(), stored.revision),
        ("ACTIVE", 1)
    );
    assert_eq!(answer.transition.unwrap().from_state, None);
    assert_eq!(get(&tenant, &id).await.unwrap(), stored);
    assert_eq!(
        history(&tenant, &id).await,
        [("boot".into(), "ACTIVE".into())]
    );
}

#[tokio::test]
async fn omitted_fields_stay_unchanged() {
    let (_app, tenant) = App::with_tenant().await;
    let id = new_id();
    let first = UpsertBridgeStateRequest {
        total_workflows_processed: Some(3),
        total_items_aggregated: Some(9),
        aggregation_metadata: document(json!({"a": {"b": 1, "c": 2}})),
        ..bridge(&tenant, &id)
    };
    let first = upsert(&tenant, first).await.unwrap().bridge_state.unwrap();
    assert!(first.last_aggregation_timestamp.is_some());
    let second = UpsertBridgeStateRequest {
        total_items_aggregated: Some(10),
        current_fsm_state: String::new(),
        aggregation_metadata: document(json!({"a": {"c": null}})),
        ..bridge(&tenant, &id)
    };
    let second = upsert(&tenant, second).await.unwrap();
    assert!(second.transition.is_none());
    let second = second.bridge_state.unwrap();
    assert_eq!(
        (
            second.total_workflows_processed,
            second.total_items_aggregated
        ),
        (3, 10)
    );
    assert_eq!(
        value(second.aggregation_metadata.clone()),
        json!({"a": {"b": 1}})
    );
    assert_eq!(
        (second.current_fsm_state.as_str(), second.revision),
        ("ACTIVE", 2)
    );
    assert_eq!(second.created_at, first.created_at);
    // A document replaces the other one even if it is empty. A state leaves the time alone.
    let third = UpsertBridgeStateRequest {
        aggregation_metadata: document(json!({})),
        metadata_update: MetadataUpdate::Replace.into(),
        current_fsm_state: "DRAINING".into(),
        ..bridge(&tenant, &id)
    };
    let third = upsert(&tenant, third).await.unwrap().bridge_state.unwrap();
    assert_eq!(value(third.aggregation_metadata.clone()), json!({}));
    assert_eq!(
        third.last_aggregation_timestamp,
        second.last_aggregation_timestamp
    );
    let moves = [
        ("start".into(), "ACTIVE".into()),
        ("move".into(), "DRAINING".into()),
    ];
    assert_eq!(history(&tenant, &id).await, moves);
}

#[tokio::test]
async fn a_retry_changes_nothing() {
    let (_app, tenant) = App::with_tenant().await;
    let id = new_id();
    let request = UpsertBridgeStateRequest {
        total_items_aggregated: Some(5),
        aggregation_metadata: document(json!({"gone": null, "a": 1})),
        expected_revision: Some(0),
        ..bridge(&tenant, &id)
    };
    let first = upsert(&tenant, request.clone()).await.unwrap();
    let again = upsert(&tenant, request.clone()).await.unwrap();
    assert!(first.applied && !again.applied);
    assert_eq!(first.bridge_state, again.bridge_state);
    // The same holds for a request that matches the stored row.
    let same = UpsertBridgeStateRequest {
        total_items_aggregated: Some(5),
        ..bridge(&tenant, &id)
    };
    assert!(!upsert(&tenant, same).await.unwrap().applied);
    assert_eq!(get(&tenant, &id).await.unwrap().revision, 1);
}

#[tokio::test]
async fn a_stale_expected_revision_aborts() {
    let (_app, tenant) = App::with_tenant().await;
    let id = new_bridge(&tenant).await;
    let expecting = |id: &str, revision, items| UpsertBridgeStateRequest {
        expected_revision: Some(revision),
        total_items_aggregated: Some(items),
        ..bridge(&tenant, id)
    };
    let changed = Failure::new(Code::Aborted, "REVISION_CHANGED");
    for (id, revision) in [(id.as_str(), 0), (&id, 2), (&new_id(), 1)] {
        assert_eq!(
            failure(upsert(&tenant, expecting(id, revision, 1)).await),
            changed
        );
    }
    // One of many callers with the same revision succeeds.
    let calls = (0..20).map(|items| upsert(&tenant, expecting(&id, 1, items + 1)));
    let won = join_all(calls)
        .await
        .into_iter()
        .filter(Result::is_ok)
        .count();
    assert_eq!(won, 1);
    assert_eq!(get(&tenant, &id).await.unwrap().revision, 2);
}

#[tokio::test]
async fn a_bridge_id_of_another_tenant_is_a_conflict() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_bridge(&tenant).await;
    let stranger = app.tenant();
    let foreign = UpsertBridgeStateRequest {
        total_items_aggregated: Some(7),
        ..bridge(&stranger, &id)
    };
    assert_eq!(
        failure(upsert(&stranger, foreign).await),
        Failure::id_conflict()
    );
    assert_eq!(totals(&tenant, &id).await, (0, 0));
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_id();
    let good = bridge(&tenant, &id);
    let bad = [
        (
            "bridge_id",
            UpsertBridgeStateRequest {
                bridge_id: String::new(),
                ..good.clone()
            },
        ),
        (
            "bridge_id",
            UpsertBridgeStateRequest {
                bridge_id: "7".into(),
                ..good.clone()
            },
        ),
        (
            "total_workflows_processed",
            UpsertBridgeStateRequest {
                total_workflows_processed: Some(-1),
                ..good.clone()
            },
        ),
        (
            "total_items_aggregated",
            UpsertBridgeStateRequest {
                total_items_aggregated: Some(i64::MIN),
                ..good.clone()
            },
        ),
        (
            "aggregation_metadata",
            UpsertBridgeStateRequest {
                aggregation_metadata: document(json!({"a": "\0"})),
                ..good.clone()
            },
        ),
        (
            "metadata_update",
            UpsertBridgeStateRequest {
                metadata_update: 3,
                ..good.clone()
            },
        ),
        (
            "current_fsm_state",
            UpsertBridgeStateRequest {
                current_fsm_state: "S".repeat(51),
                ..good.clone()
            },
        ),
        (
            "current_fsm_state",
            UpsertBridgeStateRequest {
                current_fsm_state: String::new(),
                ..good.clone()
            },
        ),
        (
            "transition_event",
            UpsertBridgeStateRequest {
                transition_event: "a\nb".into(),
                ..good.clone()
            },
        ),
        (
            "expected_revision",
            UpsertBridgeStateRequest {
                expected_revision: Some(-1),
                ..good.clone()
            },
        ),
        (
            "last_aggregation_timestamp",
            UpsertBridgeStateRequest {
                last_aggregation_timestamp: Some(prost_types::Timestamp {
                    seconds: i64::MAX,
                    nanos: 0,
                }),
                ..good.clone()
            },
        ),
    ];
    for (field, request) in bad {
        assert_eq!(
            failure(upsert(&tenant, request).await),
            Failure::invalid(&[field])
        );
    }
    assert_eq!(
        app.schema.count("SELECT count(*) FROM bridge_states").await,
        0
    );
}
