use bridgebook::proto::v1::{
    AccumulateBridgeStateRequest, MetadataUpdate, UpsertBridgeStateRequest,
};
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;
use serde_json::json;

use super::{accumulate, batch, bridge, get, history, new_bridge, totals, upsert};
use crate::support::{App, Failure, Tenant, document, failure, new_id, value};

#[tokio::test]
async fn adds_to_the_totals_and_sets_the_time() {
    let (_app, tenant) = App::with_tenant().await;
    let id = new_bridge(&tenant).await;
    assert!(
        get(&tenant, &id)
            .await
            .unwrap()
            .last_aggregation_timestamp
            .is_none()
    );
    let request = AccumulateBridgeStateRequest {
        aggregation_metadata: document(json!({"last": "a"})),
        ..batch(&tenant, &id, 10)
    };
    let first = accumulate(&tenant, request).await.unwrap();
    assert!(first.applied && first.transition.is_none());
    let state = first.bridge_state.unwrap();
    assert_eq!(
        (
            state.total_workflows_processed,
            state.total_items_aggregated
        ),
        (1, 10)
    );
    assert_eq!(
        (state.revision, state.last_aggregation_timestamp),
        (2, state.updated_at)
    );
    let request = AccumulateBridgeStateRequest {
        aggregation_metadata: document(json!({"only": "b"})),
        metadata_update: MetadataUpdate::Replace.into(),
        workflows_processed: 0,
        current_fsm_state: "FULL".into(),
        transition_event: "fill".into(),
        ..batch(&tenant, &id, 0)
    };
    let second = accumulate(&tenant, request).await.unwrap();
    assert_eq!(
        second.transition.unwrap().from_state.as_deref(),
        Some("ACTIVE")
    );
    let state = second.bridge_state.unwrap();
    assert_eq!(
        (
            state.total_workflows_processed,
            state.total_items_aggregated
        ),
        (1, 10)
    );
    assert_eq!(
        value(state.aggregation_metadata.clone()),
        json!({"only": "b"})
    );
    assert_eq!(get(&tenant, &id).await.unwrap(), state);
    let moves = [
        ("start".into(), "ACTIVE".into()),
        ("fill".into(), "FULL".into()),
    ];
    assert_eq!(history(&tenant, &id).await, moves);
}

#[tokio::test]
async fn a_new_bridge_starts_in_the_given_state() {
    let (_app, tenant) = App::with_tenant().await;
    let id = new_id();
    let refused = failure(accumulate(&tenant, batch(&tenant, &id, 1)).await);
    assert_eq!(refused, Failure::invalid(&["current_fsm_state"]));
    let request = AccumulateBridgeStateRequest {
        current_fsm_state: "ACTIVE".into(),
        ..batch(&tenant, &id, 4)
    };
    assert!(accumulate(&tenant, request).await.unwrap().applied);
    assert_eq!(totals(&tenant, &id).await, (1, 4));
}

/// Sends the same batch through two replicas at once, many times.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_counts_once_however_often_it_is_sent() {
    let (app, tenant) = App::with_tenant().await;
    let other = app.replica().await;
    let elsewhere = Tenant {
        channel: other.channel.clone(),
        ..tenant.clone()
    };
    let bridges = [new_id(), new_id()];
    let batches: Vec<_> = (0..40)
        .map(|number| AccumulateBridgeStateRequest {
            current_fsm_state: "ACTIVE".into(),
            ..batch(&tenant, &bridges[number % 2], number as i64)
        })
        .collect();
    let calls = (0..10).flat_map(|round| {
        let tenant = if round % 2 == 0 { &tenant } else { &elsewhere };
        batches
            .iter()
            .map(|request| accumulate(tenant, request.clone()))
    });
    let answers = join_all(calls).await.into_iter().map(Result::unwrap);
    assert_eq!(answers.filter(|answer| answer.applied).count(), 40);
    assert_eq!(totals(&tenant, &bridges[0]).await, (20, 380));
    assert_eq!(totals(&tenant, &bridges[1]).await, (20, 400));
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM bridge_batches WHERE workflows_processed > 0")
            .await,
        40
    );
    assert_eq!(get(&tenant, &bridges[0]).await.unwrap().revision, 20);
}

#[tokio::test]
async fn a_batch_counts_once_across_a_restart() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_bridge(&tenant).await;
    let request = batch(&tenant, &id, 3);
    let first = accumulate(&tenant, request.clone()).await.unwrap();
    let next = app.replica().await;
    drop(app);
    let tenant = Tenant {
        channel: next.channel.clone(),
        ..tenant
    };
    let again = accumulate(&tenant, request).await.unwrap();
    assert!(first.applied && !again.applied);
    assert_eq!(first.bridge_state, again.bridge_state);
}

#[tokio::test]
async fn a_batch_id_is_unique_within_its_bridge() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_bridge(&tenant).await;
    let request = batch(&tenant, &id, 3);
    accumulate(&tenant, request.clone()).await.unwrap();
    let other = AccumulateBridgeStateRequest {
        items_aggregated: 4,
        ..request.clone()
    };
    assert_eq!(
        failure(accumulate(&tenant, other).await),
        Failure::id_conflict()
    );
    // The same content in another notation is the same batch.
    let same = AccumulateBridgeStateRequest {
        bridge_id: request.bridge_id.to_uppercase(),
        metadata_update: MetadataUpdate::Merge.into(),
        ..request.clone()
    };
    assert!(!accumulate(&tenant, same).await.unwrap().applied);
    let second = AccumulateBridgeStateRequest {
        bridge_id: new_bridge(&tenant).await,
        ..request.clone()
    };
    assert!(accumulate(&tenant, second).await.unwrap().applied);
    let stranger = app.tenant();
    let foreign = AccumulateBridgeStateRequest {
        namespace: stranger.namespace.clone(),
        ..request
    };
    assert_eq!(
        failure(accumulate(&stranger, foreign).await),
        Failure::id_conflict()
    );
    assert_eq!(totals(&tenant, &id).await, (1, 3));
}

#[tokio::test]
async fn a_total_that_would_overflow_changes_nothing() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_id();
    let full = UpsertBridgeStateRequest {
        total_items_aggregated: Some(i64::MAX - 5),
        ..bridge(&tenant, &id)
    };
    let before = upsert(&tenant, full).await.unwrap().bridge_state.unwrap();
    let too_much = AccumulateBridgeStateRequest {
        current_fsm_state: "FULL".into(),
        ..batch(&tenant, &id, 6)
    };
    let refused = failure(accumulate(&tenant, too_much).await);
    assert_eq!(refused, Failure::invalid(&["items_aggregated"]));
    assert_eq!(get(&tenant, &id).await.unwrap(), before);
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM bridge_batches WHERE workflows_processed > 0")
            .await,
        0
    );
    // Other calls in the same batch of the server succeed.
    let calls = (0..8).map(|_| accumulate(&tenant, batch(&tenant, &id, 1)));
    let answers = join_all(calls).await;
    assert_eq!(answers.iter().filter(|it| it.is_ok()).count(), 5);
    assert_eq!(totals(&tenant, &id).await, (5, i64::MAX));
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_bridge(&tenant).await;
    let good = batch(&tenant, &id, 1);
    let bad = [
        (
            "bridge_id",
            AccumulateBridgeStateRequest {
                bridge_id: String::new(),
                ..good.clone()
            },
        ),
        (
            "batch_id",
            AccumulateBridgeStateRequest {
                batch_id: String::new(),
                ..good.clone()
            },
        ),
        (
            "batch_id",
            AccumulateBridgeStateRequest {
                batch_id: "batch 7".into(),
                ..good.clone()
            },
        ),
        (
            "workflows_processed",
            AccumulateBridgeStateRequest {
                workflows_processed: -1,
                ..good.clone()
            },
        ),
        (
            "items_aggregated",
            AccumulateBridgeStateRequest {
                items_aggregated: i64::MIN,
                ..good.clone()
            },
        ),
        (
            "aggregation_metadata",
            AccumulateBridgeStateRequest {
                aggregation_metadata: document(json!({"\0": 1})),
                ..good.clone()
            },
        ),
        (
            "metadata_update",
            AccumulateBridgeStateRequest {
                metadata_update: -1,
                ..good.clone()
            },
        ),
        (
            "current_fsm_state",
            AccumulateBridgeStateRequest {
                current_fsm_state: "\0".into(),
                ..good.clone()
            },
        ),
        (
            "transition_event",
            AccumulateBridgeStateRequest {
                transition_event: "\u{85}".into(),
                ..good.clone()
            },
        ),
    ];
    for (field, request) in bad {
        assert_eq!(
            failure(accumulate(&tenant, request).await),
            Failure::invalid(&[field])
        );
    }
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM bridge_batches WHERE workflows_processed > 0")
            .await,
        0
    );
}

/// Together the bridges are larger than what a batch reads.
#[tokio::test]
async fn concurrent_changes_of_large_bridges_each_change_their_bridge() {
    let (app, tenant) = App::with_tenant().await;
    let bridges = join_all((0..40).map(|_| new_bridge(&tenant))).await;
    let grow = "UPDATE bridge_states SET aggregation_metadata =
                    jsonb_build_object('id', bridge_id, 'text', repeat('x', 900000))";
    let mut database = app.schema.connect().await;
    database.batch_execute(grow).await.unwrap();
    let changes = bridges
        .iter()
        .map(|id| accumulate(&tenant, batch(&tenant, id, 10)));
    for (changed, id) in join_all(changes).await.into_iter().zip(&bridges) {
        let changed = changed.unwrap();
        assert!(changed.applied);
        let bridge = changed.bridge_state.unwrap();
        assert_eq!(bridge.total_items_aggregated, 10);
        assert_eq!(value(bridge.aggregation_metadata)["id"], json!(id));
    }
}
