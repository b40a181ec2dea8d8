//! Where a stream begins.

use std::collections::HashMap;

use bridgebook::proto::v1::{
    UpsertBridgeStateRequest, WatchTransitionsRequest,
    bridge_state_service_client::BridgeStateServiceClient, watch_transitions_request::Begin,
};

use diesel_async::SimpleAsyncConnection;
use tonic_types::StatusExt;

use super::{Watching, after, all, from_start, ids, make_moves};
use crate::support::{App, Failure, Tenant, failure, new_id};

async fn sql(app: &App, statements: &str) {
    let mut connection = app.schema.connect().await;
    connection.batch_execute(statements).await.unwrap();
}

/// Returns the metadata of the error of a request.
async fn metadata(tenant: &Tenant, request: WatchTransitionsRequest) -> HashMap<String, String> {
    let status = Watching::open(tenant, request).await.map(drop).unwrap_err();
    status.get_details_error_info().unwrap().metadata
}

async fn refused(tenant: &Tenant, request: WatchTransitionsRequest) -> Failure {
    failure(Watching::open(tenant, request).await.map(drop))
}

#[tokio::test]
async fn from_now_leaves_out_what_was_there() {
    let (app, tenant) = App::with_tenant().await;
    make_moves(&tenant, 2).await;
    // A transaction that is open keeps the row before it above the horizon.
    let mut open = app.schema.connect().await;
    open.batch_execute("BEGIN; SELECT pg_current_xact_id()")
        .await
        .unwrap();
    make_moves(&tenant, 2).await;
    let mut watching = Watching::open(&tenant, all(&tenant)).await.unwrap();
    let new = make_moves(&tenant, 1).await;
    open.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(ids(&watching.transitions(1).await), ids(&new));
}

#[tokio::test]
async fn from_start_begins_with_the_oldest_row_and_goes_on_with_new_ones() {
    let (app, tenant) = App::with_tenant().await;
    let old = make_moves(&tenant, 5).await;
    let mut watching = Watching::open(&tenant, from_start(&tenant)).await.unwrap();
    assert_eq!(watching.transitions(5).await, old);
    let new = make_moves(&tenant, 1).await;
    assert_eq!(watching.transitions(1).await, new);
    let fresh = app.tenant();
    let mut empty = Watching::open(&fresh, from_start(&fresh)).await.unwrap();
    let first = make_moves(&fresh, 1).await;
    assert_eq!(empty.transitions(1).await, first);
}

#[tokio::test]
async fn a_stream_goes_on_after_any_position() {
    let (_app, tenant) = App::with_tenant().await;
    let empty = Watching::open(&tenant, all(&tenant)).await.unwrap();
    let rows = make_moves(&tenant, 4).await;
    let mut from_empty = Watching::open(&tenant, after(&tenant, &empty.ready))
        .await
        .unwrap();
    assert_eq!(from_empty.transitions(4).await, rows);
    for (index, row) in rows.iter().enumerate().take(3) {
        let mut resumed = Watching::open(&tenant, after(&tenant, &row.position))
            .await
            .unwrap();
        assert_eq!(resumed.ready, row.position);
        let rest = &rows[index + 1..];
        assert_eq!(resumed.transitions(rest.len()).await, rest);
    }
}

#[tokio::test]
async fn a_position_of_a_row_that_is_gone_is_told_from_a_wrong_one() {
    let (app, tenant) = App::with_tenant().await;
    let rows = make_moves(&tenant, 3).await;
    let stranger = app.tenant();
    let foreign = make_moves(&stranger, 1).await.remove(0).position;
    let mut invented = rows[0].position.clone();
    invented.replace_range(20..21, if &invented[20..21] == "7" { "8" } else { "7" });
    for bad in [
        "",
        "x",
        "p",
        "\0",
        &foreign,
        &invented,
        &rows[0].id,
        &rows[0].position[1..],
    ] {
        let refused = refused(&tenant, after(&tenant, bad)).await;
        assert_eq!(refused.reason, "INVALID_FIELD", "{bad:?}");
        assert_eq!(refused.fields, ["after"], "{bad:?}");
    }
    // A failover or a restore has lost the last row.
    let delete = format!("DELETE FROM fsm_transitions WHERE id = '{}'", rows[2].id);
    sql(&app, &delete).await;
    let lost = refused(&tenant, after(&tenant, &rows[2].position)).await;
    assert_eq!(lost.reason, "RESUME_POINT_GONE");
    // The row before it is still there, and another one gets no position of the lost one.
    let mut resumed = Watching::open(&tenant, after(&tenant, &rows[1].position))
        .await
        .unwrap();
    let new = make_moves(&tenant, 1).await;
    assert_eq!(resumed.transitions(1).await, new);
}

#[tokio::test]
async fn a_stream_that_would_miss_removed_rows_does_not_begin() {
    let (app, tenant) = App::with_tenant().await;
    let rows = make_moves(&tenant, 4).await;
    // As retention does: the first two rows are removed.
    let removed = ids(&rows[..2]).join("', '");
    let prune = format!(
        "WITH removed AS (
            DELETE FROM fsm_transitions WHERE id IN ('{removed}') RETURNING namespace, xid, seq, id)
         INSERT INTO journal_floors (namespace, xid, seq, transition_id)
         SELECT * FROM removed ORDER BY xid DESC, seq DESC LIMIT 1"
    );
    sql(&app, &prune).await;
    let gone = refused(&tenant, after(&tenant, &rows[0].position)).await;
    assert_eq!(gone.reason, "RESUME_POINT_GONE");
    let oldest = &metadata(&tenant, after(&tenant, &rows[0].position)).await["oldest_position"];
    assert_eq!(*oldest, rows[1].position, "the last one that was removed");
    for request in [after(&tenant, oldest), from_start(&tenant)] {
        let mut watching = Watching::open(&tenant, request).await.unwrap();
        assert_eq!(watching.ready, *oldest);
        assert_eq!(watching.transitions(2).await, rows[2..]);
    }
}

#[tokio::test]
async fn after_bridge_begins_with_what_the_bridge_has_not_consumed() {
    let (app, tenant) = App::with_tenant().await;
    let rows = make_moves(&tenant, 3).await;
    let bridge_id = new_id();
    let after_bridge = || WatchTransitionsRequest {
        begin: Some(Begin::AfterBridge(bridge_id.clone())),
        ..all(&tenant)
    };
    assert_eq!(
        refused(&tenant, after_bridge()).await.reason,
        "BRIDGE_NOT_FOUND"
    );
    let upsert = UpsertBridgeStateRequest {
        namespace: tenant.namespace.clone(),
        bridge_id: bridge_id.clone(),
        current_fsm_state: "IDLE".into(),
        ..UpsertBridgeStateRequest::default()
    };
    let mut bridges = BridgeStateServiceClient::new(tenant.channel.clone());
    bridges.upsert_bridge_state(upsert).await.unwrap();
    let mut watching = Watching::open(&tenant, after_bridge()).await.unwrap();
    assert_eq!(ids(&watching.transitions(4).await)[..3], ids(&rows));
    let consume = format!(
        "UPDATE bridge_states b SET consumed_xid = t.xid, consumed_seq = t.seq,
                consumed_transition_id = t.id FROM fsm_transitions t
          WHERE b.bridge_id = '{bridge_id}' AND t.id = '{}'",
        rows[1].id
    );
    sql(&app, &consume).await;
    let mut watching = Watching::open(&tenant, after_bridge()).await.unwrap();
    assert_eq!(watching.ready, rows[1].position);
    assert_eq!(watching.transitions(2).await[0], rows[2]);
    // That of another tenant is not there.
    let stranger = app.tenant();
    let foreign = WatchTransitionsRequest {
        namespace: stranger.namespace.clone(),
        ..after_bridge()
    };
    assert_eq!(refused(&stranger, foreign).await.reason, "BRIDGE_NOT_FOUND");
}

#[tokio::test]
async fn bad_requests_name_the_field() {
    let (_app, tenant) = App::with_tenant().await;
    let change = |change: fn(&mut WatchTransitionsRequest)| {
        let mut request = all(&tenant);
        change(&mut request);
        request
    };
    for (request, field) in [
        (change(|it| it.namespace = "".into()), "namespace"),
        (change(|it| it.namespace = "a**".into()), "namespace"),
        (change(|it| it.namespace = "*a".into()), "namespace"),
        (
            change(|it| it.namespace = "bridgebook.deleted".into()),
            "namespace",
        ),
        (
            change(|it| it.namespace = "bridgebook.*".into()),
            "namespace",
        ),
        (change(|it| it.entity_id = "7".into()), "entity_id"),
        (change(|it| it.entity_type = "\0".into()), "entity_type"),
        (change(|it| it.to_state = "x".repeat(51)), "to_state"),
        (
            change(|it| it.transition_event = "x".repeat(101)),
            "transition_event",
        ),
        (
            change(|it| it.begin = Some(Begin::FromStart(false))),
            "from_start",
        ),
        (
            change(|it| it.begin = Some(Begin::FromNow(false))),
            "from_now",
        ),
        (
            change(|it| it.begin = Some(Begin::AfterBridge("x".into()))),
            "after_bridge",
        ),
    ] {
        let refused = refused(&tenant, request).await;
        assert_eq!(refused.fields, [field], "{field}");
    }
    let prefix = change(|it| {
        it.namespace = "tenant-*".into();
        it.begin = Some(Begin::AfterBridge(new_id()));
    });
    assert_eq!(refused(&tenant, prefix).await.fields, ["after_bridge"]);
}

#[tokio::test]
async fn a_malformed_pattern_is_told_what_a_pattern_is() {
    let (_app, tenant) = App::with_tenant().await;
    for pattern in ["team*a", "team-?", "team-**", "te*m-*"] {
        let request = WatchTransitionsRequest {
            namespace: pattern.into(),
            ..all(&tenant)
        };
        let status = Watching::open(&tenant, request)
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(failure(Err::<(), _>(status.clone())).fields, ["namespace"]);
        let hint = "a prefix of namespaces followed by one *";
        assert!(status.message().contains(hint), "{}", status.message());
    }
}
