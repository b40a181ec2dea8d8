//! Bridges that consume the journal, each row exactly once.

use std::{collections::HashMap, net::Ipv4Addr};

use bridgebook::{
    domain::{
        id::TransitionId,
        position::{GivenPosition, Position},
    },
    proto::v1::{
        AccumulateBridgeStateRequest, AccumulateBridgeStateResponse, DeleteBridgeStateRequest,
        FsmTransition, ListBridgeStatesRequest, ListTransitionsRequest, NewTransition,
        UpsertBridgeStateRequest, WatchTransitionsRequest, watch_transitions_request::Begin,
        watch_transitions_response::Message,
    },
};
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{accumulate, batch, bridge, client, get, new_bridge, totals, upsert};
use crate::{
    fsm,
    support::{App, Failure, Tenant, document, eventually, failure, new_id, value},
};

/// Records events, each with the number of its items, and returns their positions in order. A watch could
/// send them.
async fn events(app: &App, tenant: &Tenant, items: &[i64]) -> Vec<String> {
    let mut positions = Vec::new();
    for items in items {
        let event = NewTransition {
            transition_data: document(json!({ "items": items })),
            ..fsm::transition(&new_id(), "create", "NEW")
        };
        let recorded = fsm::record(tenant, event).await.unwrap();
        positions.push(recorded.transition.unwrap().position);
    }
    if let Some(last) = positions.last() {
        app.wait_for_horizon(last).await;
    }
    positions
}

/// Returns a batch of some items, which consumes the journal between two positions.
fn consuming(
    tenant: &Tenant,
    bridge_id: &str,
    items: i64,
    [from, through]: [&str; 2],
) -> AccumulateBridgeStateRequest {
    AccumulateBridgeStateRequest {
        batch_id: String::new(),
        current_fsm_state: "ACTIVE".into(),
        consumed_from: from.into(),
        consumed_through: through.into(),
        ..batch(tenant, bridge_id, items)
    }
}

/// Returns the reason of a failure, and one value of its metadata.
fn refusal(
    result: Result<AccumulateBridgeStateResponse, Status>,
    key: &str,
) -> (Code, String, String) {
    let status = result.expect_err("it is refused");
    let info = status.get_error_details();
    let info = info.error_info().unwrap();
    let value = info.metadata.get(key).cloned();
    (
        status.code(),
        info.reason.clone(),
        value.unwrap_or_else(|| panic!("no {key}: {status:?}")),
    )
}

fn changed(position: &str) -> (Code, String, String) {
    (Code::Aborted, "STATE_CHANGED".into(), position.into())
}

fn gone(position: &str) -> (Code, String, String) {
    (
        Code::OutOfRange,
        "RESUME_POINT_GONE".into(),
        position.into(),
    )
}

async fn execute(app: &App, sql: &str) {
    let mut database = app.schema.connect().await;
    database.batch_execute(sql).await.unwrap();
}

#[tokio::test]
async fn totals_and_position_advance_together() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_id();
    let read = async || {
        let bridge = get(&tenant, &id).await.unwrap();
        (bridge.consumed_through, bridge.consumer_lag)
    };
    let p = events(&app, &tenant, &[1, 2, 3]).await;
    let first = consuming(&tenant, &id, 3, ["", &p[1]]);
    let answer = accumulate(&tenant, first).await.unwrap();
    assert!(answer.applied);
    let stored = answer.bridge_state.unwrap();
    assert_eq!(
        (&stored.consumed_through, stored.consumer_lag),
        (&p[1], None)
    );
    // The start of the bridge is a row, too.
    assert_eq!(read().await, (p[1].clone(), Some(2)));
    let second = consuming(&tenant, &id, 3, [&p[1], &p[2]]);
    accumulate(&tenant, second).await.unwrap();
    assert_eq!(read().await, (p[2].clone(), Some(1)));
    assert_eq!(totals(&tenant, &id).await, (2, 6));
    // Other changes keep the position, as does a batch that consumes nothing.
    let renamed = UpsertBridgeStateRequest {
        total_items_aggregated: Some(7),
        ..bridge(&tenant, &id)
    };
    let kept = upsert(&tenant, renamed)
        .await
        .unwrap()
        .bridge_state
        .unwrap();
    assert_eq!(kept.consumed_through, p[2]);
    let kept = accumulate(&tenant, batch(&tenant, &id, 1)).await.unwrap();
    assert_eq!(kept.bridge_state.unwrap().consumed_through, p[2]);
    // A bridge that exists may begin to consume.
    let other = new_bridge(&tenant).await;
    assert_eq!(get(&tenant, &other).await.unwrap().consumed_through, "");
    assert_eq!(get(&tenant, &other).await.unwrap().consumer_lag, None);
    let begins = consuming(&tenant, &other, 1, ["", &p[0]]);
    assert!(accumulate(&tenant, begins).await.unwrap().applied);
    let list = ListBridgeStatesRequest {
        namespace: tenant.namespace.clone(),
        ..ListBridgeStatesRequest::default()
    };
    let list = client(&tenant).list_bridge_states(list).await.unwrap();
    let list = list.into_inner().bridge_states.into_iter();
    let list: HashMap<_, _> = list.map(|it| (it.bridge_id.clone(), it)).collect();
    for id in [&id, &other] {
        assert_eq!(list[id], get(&tenant, id).await.unwrap());
    }
    assert_eq!(list[&other].consumer_lag, Some(4));
}

#[tokio::test]
async fn a_deleted_bridge_begins_anew() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_id();
    let p = events(&app, &tenant, &[1]).await;
    let first = consuming(&tenant, &id, 1, ["", &p[0]]);
    accumulate(&tenant, first.clone()).await.unwrap();
    let delete = DeleteBridgeStateRequest {
        namespace: tenant.namespace.clone(),
        bridge_id: id.clone(),
        allow_missing: false,
    };
    client(&tenant).delete_bridge_state(delete).await.unwrap();
    let from = consuming(
        &tenant,
        &id,
        1,
        [&p[0], &events(&app, &tenant, &[1]).await[0]],
    );
    assert_eq!(
        refusal(accumulate(&tenant, from).await, "consumed_through"),
        changed("")
    );
    assert!(accumulate(&tenant, first).await.unwrap().applied);
    assert_eq!(totals(&tenant, &id).await, (1, 1));
}

#[tokio::test]
async fn a_retry_counts_once_and_a_late_one_learns_the_position() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_id();
    let p = events(&app, &tenant, &[1, 1, 1]).await;
    let first = consuming(&tenant, &id, 5, ["", &p[0]]);
    // All of them may meet in one batch of the server.
    let calls = (0..8).map(|_| accumulate(&tenant, first.clone()));
    let answers = join_all(calls).await.into_iter().map(Result::unwrap);
    assert_eq!(answers.filter(|answer| answer.applied).count(), 1);
    // Another change does not make it a new one.
    upsert(&tenant, bridge(&tenant, &id)).await.unwrap();
    accumulate(&tenant, batch(&tenant, &id, 2)).await.unwrap();
    let again = accumulate(&tenant, first.clone()).await.unwrap();
    assert!(!again.applied);
    assert_eq!(again.bridge_state.unwrap().consumed_through, p[0]);
    let other = consuming(&tenant, &id, 6, ["", &p[0]]);
    assert_eq!(
        refusal(accumulate(&tenant, other).await, "consumed_through"),
        changed(&p[0])
    );
    let second = consuming(&tenant, &id, 1, [&p[0], &p[1]]);
    accumulate(&tenant, second).await.unwrap();
    let never = consuming(&tenant, &new_id(), 1, [&p[0], &p[1]]);
    let never = accumulate(&tenant, never).await.unwrap_err();
    let advice = "drop the batch, and watch with after_bridge again";
    assert!(
        never
            .message()
            .contains("has consumed nothing, not through p")
    );
    assert!(never.message().contains(advice), "{}", never.message());
    let late = accumulate(&tenant, first).await;
    assert!(late.as_ref().unwrap_err().message().contains(&p[1]));
    assert_eq!(refusal(late, "consumed_through"), changed(&p[1]));
    // The origin is the position of a bridge that has consumed nothing.
    let origin = Position::default().to_text(&tenant.namespace);
    let from_origin = consuming(&tenant, &new_id(), 1, [&origin, &p[0]]);
    assert!(accumulate(&tenant, from_origin).await.unwrap().applied);
    assert_eq!(totals(&tenant, &id).await, (3, 8));
}

#[tokio::test]
async fn with_a_batch_id_both_must_be_new() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_id();
    let p = events(&app, &tenant, &[1, 1]).await;
    let with = |batch_id: &str, range: [&str; 2]| AccumulateBridgeStateRequest {
        batch_id: batch_id.into(),
        ..consuming(&tenant, &id, 1, range)
    };
    let (a, b) = (new_id(), new_id());
    let first = with(&a, ["", &p[0]]);
    assert!(accumulate(&tenant, first.clone()).await.unwrap().applied);
    let taken = accumulate(&tenant, with(&a, [&p[0], &p[1]])).await;
    assert_eq!(failure(taken), Failure::id_conflict());
    let behind = accumulate(&tenant, with(&b, ["", &p[1]])).await;
    assert_eq!(refusal(behind, "consumed_through"), changed(&p[0]));
    let second = with(&b, [&p[0], &p[1]]);
    assert!(accumulate(&tenant, second.clone()).await.unwrap().applied);
    // The batch_id tells an old retry, and the position the last one after retention.
    assert!(!accumulate(&tenant, first).await.unwrap().applied);
    execute(&app, "DELETE FROM bridge_batches").await;
    assert!(!accumulate(&tenant, second).await.unwrap().applied);
    assert_eq!(totals(&tenant, &id).await, (2, 2));
    let rows = "SELECT count(*) FROM bridge_batches";
    let only_positions = consuming(&tenant, &new_id(), 1, ["", &p[0]]);
    accumulate(&tenant, only_positions).await.unwrap();
    assert_eq!(app.schema.count(rows).await, 0);
}

#[tokio::test]
async fn invalid_positions_are_named() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_id();
    let p = events(&app, &tenant, &[1, 1]).await;
    let theirs = events(&app, &app.tenant(), &[1]).await;
    let origin = Position::default().to_text(&tenant.namespace);
    let cut = &p[0][1..];
    for (field, range) in [
        ("consumed_through", ["", "latest"]),
        ("consumed_through", ["", cut]),
        ("consumed_through", ["", &theirs[0]]),
        ("consumed_through", ["", &origin]),
        ("consumed_through", [&p[0], &p[0]]),
        ("consumed_through", [&p[1], &p[0]]),
        ("consumed_from", [cut, &p[0]]),
        ("consumed_from", [&theirs[0], &p[0]]),
    ] {
        let refused = accumulate(&tenant, consuming(&tenant, &id, 1, range)).await;
        assert_eq!(failure(refused), Failure::invalid(&[field]), "{range:?}");
    }
    let without = AccumulateBridgeStateRequest {
        batch_id: new_id(),
        ..consuming(&tenant, &id, 1, [&p[0], ""])
    };
    let refused = failure(accumulate(&tenant, without).await);
    assert_eq!(refused, Failure::invalid(&["consumed_from"]));
    let neither = consuming(&tenant, &id, 1, ["", ""]);
    let refused = accumulate(&tenant, neither).await;
    let message = refused.as_ref().unwrap_err().message();
    assert!(message.contains("is required without consumed_through"));
    assert_eq!(failure(refused), Failure::invalid(&["batch_id"]));
    let bad_batch = AccumulateBridgeStateRequest {
        batch_id: "7".into(),
        ..consuming(&tenant, &id, 1, ["", &p[0]])
    };
    let refused = failure(accumulate(&tenant, bad_batch).await);
    assert_eq!(refused, Failure::invalid(&["batch_id"]));
}

/// After a failover the journal may lack rows that a reader has seen.
#[tokio::test]
async fn a_position_whose_row_is_lost_is_not_consumed() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_id();
    let namespace = tenant.namespace.as_str();
    let p = events(&app, &tenant, &[1, 1, 1]).await;
    let at = |text: &str| GivenPosition::parse(text).unwrap().of_any();
    let origin = Position::default().to_text(namespace);
    let consume =
        async |through: &str| accumulate(&tenant, consuming(&tenant, &id, 1, ["", through])).await;
    // Other numbers, and another id.
    let moved = Position {
        seq: at(&p[1]).seq + 1,
        ..at(&p[1])
    };
    let unknown = Position {
        transition_id: TransitionId::generate(),
        ..at(&p[1])
    };
    for position in [moved, unknown] {
        let refused = consume(&position.to_text(namespace)).await;
        assert_eq!(refusal(refused, "oldest_position"), gone(&origin));
    }
    let lost = format!(
        "DELETE FROM fsm_transitions WHERE id IN ('{}', '{}')",
        at(&p[0]).transition_id,
        at(&p[1]).transition_id
    );
    execute(&app, &lost).await;
    assert_eq!(
        refusal(consume(&p[1]).await, "oldest_position"),
        gone(&origin)
    );
    // Retention removes rows, too, and says how far.
    let floor = |position: Position| {
        let Position {
            xid,
            seq,
            transition_id,
        } = position;
        format!(
            "INSERT INTO journal_floors (namespace, xid, seq, transition_id)
             VALUES ('{namespace}', '{xid}', {seq}, '{transition_id}')
             ON CONFLICT (namespace) DO UPDATE
             SET xid = excluded.xid, seq = excluded.seq, transition_id = excluded.transition_id"
        )
    };
    execute(&app, &floor(at(&p[0]))).await;
    assert_eq!(
        refusal(consume(&p[1]).await, "oldest_position"),
        gone(&p[0])
    );
    // A watch after a bridge that has consumed nothing begins at the floor, which may have risen since.
    let at_floor = consuming(&tenant, &new_id(), 1, [&p[0], &p[2]]);
    assert!(accumulate(&tenant, at_floor).await.unwrap().applied);
    let above_floor = consuming(&tenant, &new_id(), 1, [&p[1], &p[2]]);
    assert_eq!(
        refusal(accumulate(&tenant, above_floor).await, "consumed_through"),
        changed("")
    );
    let below_floor = async || {
        let request = consuming(&tenant, &new_id(), 1, [&p[0], &p[2]]);
        accumulate(&tenant, request).await
    };
    assert!(consume(&p[0]).await.unwrap().applied);
    execute(&app, &floor(at(&p[1]))).await;
    assert!(below_floor().await.unwrap().applied);
    let next = consuming(&tenant, &id, 1, [&p[0], &p[1]]);
    assert!(accumulate(&tenant, next).await.unwrap().applied);
    assert_eq!(totals(&tenant, &id).await, (2, 2));
}

/// A row that commits later may come before one that is there.
#[tokio::test]
async fn a_position_above_the_horizon_is_not_consumed() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_id();
    let p = events(&app, &tenant, &[1]).await;
    let mut open = app.schema.connect().await;
    let begin = "BEGIN; SELECT pg_current_xact_id()";
    open.batch_execute(begin).await.unwrap();
    let ahead = fsm::record(&tenant, fsm::transition(&new_id(), "create", "NEW")).await;
    let ahead = ahead.unwrap().transition.unwrap().position;
    let request = consuming(&tenant, &id, 2, ["", &ahead]);
    let refused = accumulate(&tenant, request.clone()).await;
    assert_eq!(
        refusal(refused, "consumed_through"),
        (
            Code::FailedPrecondition,
            "POSITION_AHEAD".into(),
            ahead.clone()
        )
    );
    // What a watch has sent passes.
    let sent = consuming(&tenant, &new_id(), 1, ["", &p[0]]);
    assert!(accumulate(&tenant, sent).await.unwrap().applied);
    open.batch_execute("COMMIT").await.unwrap();
    app.wait_for_horizon(&ahead).await;
    assert!(accumulate(&tenant, request).await.unwrap().applied);
    assert_eq!(totals(&tenant, &id).await, (1, 2));
}

#[tokio::test]
async fn a_position_alone_is_no_aggregation() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_bridge(&tenant).await;
    let p = events(&app, &tenant, &[1, 1, 1, 1]).await;
    let only_position = |range: [&str; 2]| AccumulateBridgeStateRequest {
        workflows_processed: 0,
        ..consuming(&tenant, &id, 0, range)
    };
    let consume = async |request| {
        let answer = accumulate(&tenant, request).await.unwrap();
        assert!(answer.applied);
        answer.bridge_state.unwrap()
    };
    let first = consume(only_position(["", &p[0]])).await;
    assert_eq!(
        (first.revision, first.last_aggregation_timestamp),
        (2, None)
    );
    let counted = consume(consuming(&tenant, &id, 1, [&p[0], &p[1]])).await;
    let counted_at = counted.last_aggregation_timestamp;
    assert_eq!(counted_at, counted.updated_at);
    let moved = consume(only_position([&p[1], &p[2]])).await;
    assert_eq!(moved.last_aggregation_timestamp, counted_at);
    assert_eq!((moved.revision, &moved.consumed_through), (4, &p[2]));
    // A document is content.
    let document = AccumulateBridgeStateRequest {
        aggregation_metadata: document(json!({"last": "d"})),
        ..only_position([&p[2], &p[3]])
    };
    let documented = consume(document).await;
    assert!(documented.last_aggregation_timestamp.is_some());
    assert_eq!(documented.last_aggregation_timestamp, documented.updated_at);
}

/// Returns the number of items of an event.
fn items(row: FsmTransition) -> i64 {
    let data = value(row.transition_data);
    data["items"].as_f64().unwrap() as i64
}

/// Returns the orders' rows of the journal after a position, with the number of their items.
async fn rows_after(tenant: &Tenant, position: &str) -> Vec<(String, i64)> {
    let request = ListTransitionsRequest {
        namespace: tenant.namespace.clone(),
        entity_type: "order".into(),
        page_size: 1000,
        ..ListTransitionsRequest::default()
    };
    let rows = fsm::client(tenant).list_transitions(request).await.unwrap();
    let rows = rows.into_inner().transitions.into_iter();
    let mut rows: Vec<_> = rows
        .filter(|row| row.position.as_str() > position)
        .map(|row| (row.position.clone(), items(row)))
        .collect();
    rows.sort();
    rows
}

/// Consumes up to `size` rows at a time until there are no more, as one process of a reducer.
/// Returns how often it was too late.
async fn reduce(tenant: &Tenant, bridge_id: &str, size: usize) -> usize {
    let mut from = String::new();
    let mut late = 0;
    loop {
        let rows = rows_after(tenant, &from).await;
        let batch: Vec<_> = rows.into_iter().take(size).collect();
        let Some((through, _)) = batch.last() else {
            return late;
        };
        let items = batch.iter().map(|(_, items)| items).sum();
        let request = AccumulateBridgeStateRequest {
            workflows_processed: i64::try_from(batch.len()).unwrap(),
            ..consuming(tenant, bridge_id, items, [&from, through])
        };
        match accumulate(tenant, request).await {
            Ok(answer) => from = answer.bridge_state.unwrap().consumed_through,
            Err(status) => {
                let (code, _, current) = refusal(Err(status), "consumed_through");
                assert_eq!(code, Code::Aborted);
                from = current;
                late += 1;
            }
        }
    }
}

/// Several processes reduce the same rows for one bridge, through two replicas.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_reducers_count_every_row_exactly_once() {
    let (app, tenant) = App::with_tenant().await;
    let other = app.replica().await;
    let elsewhere = Tenant {
        channel: other.channel.clone(),
        ..tenant.clone()
    };
    let items: Vec<i64> = (1..=120).collect();
    let last = events(&app, &tenant, &items).await.pop().unwrap();
    let id = new_id();
    let processes = [(&tenant, 3), (&elsewhere, 3), (&tenant, 7), (&elsewhere, 5)];
    let late = join_all(processes.map(|(tenant, size)| reduce(tenant, &id, size))).await;
    assert!(late.iter().sum::<usize>() > 0, "they never met");
    assert_eq!(totals(&tenant, &id).await, (120, 120 * 121 / 2));
    let bridge = get(&tenant, &id).await.unwrap();
    assert_eq!(bridge.consumed_through, last);
    // The start of the bridge came later.
    assert_eq!(bridge.consumer_lag, Some(1));
}

/// Follows the orders of the journal for one bridge, as one process of a reducer.
async fn follow(tenant: Tenant, bridge_id: String) {
    let watch = WatchTransitionsRequest {
        namespace: tenant.namespace.clone(),
        entity_type: "order".into(),
        begin: Some(Begin::AfterBridge(bridge_id.clone())),
        ..WatchTransitionsRequest::default()
    };
    loop {
        let stream = fsm::client(&tenant).watch_transitions(watch.clone()).await;
        let mut stream = stream.unwrap().into_inner();
        let mut from = String::new();
        while let Ok(Some(message)) = stream.message().await {
            let rows = match message.message.unwrap() {
                Message::Snapshot(_) => panic!("no snapshot was asked for"),
                Message::Ready(ready) => {
                    from = ready.position;
                    continue;
                }
                Message::Bookmark(_) => continue,
                Message::Transitions(rows) => rows.transitions,
            };
            let items = rows.iter().map(|row| items(row.clone())).sum();
            let through = rows.last().unwrap().position.clone();
            let request = AccumulateBridgeStateRequest {
                workflows_processed: i64::try_from(rows.len()).unwrap(),
                ..consuming(&tenant, &bridge_id, items, [&from, &through])
            };
            match accumulate(&tenant, request).await {
                Ok(_) => from = through,
                // Another process was faster.
                Err(status) if status.code() == Code::Aborted => break,
                Err(status) => panic!("{status:?}"),
            }
        }
    }
}

/// Several processes follow the journal for one bridge while rows are written, through two replicas.
#[tokio::test(flavor = "multi_thread")]
async fn reducers_that_watch_count_every_row_exactly_once() {
    let (app, tenant) = App::with_tenant().await;
    let other = app.replica().await;
    let elsewhere = Tenant {
        channel: other.channel.clone(),
        ..tenant.clone()
    };
    let id = new_bridge(&tenant).await;
    let followers = [&tenant, &elsewhere, &tenant]
        .map(|tenant| tokio::spawn(follow(tenant.clone(), id.clone())));
    let items: Vec<i64> = (1..=60).collect();
    let writers = [&tenant, &elsewhere, &tenant, &elsewhere];
    join_all(writers.map(|tenant| events(&app, tenant, &items))).await;
    let expected = (4 * 60, 4 * 60 * 61 / 2);
    eventually("every row is counted", || async {
        let found = totals(&tenant, &id).await;
        assert!(found <= expected, "{found:?}");
        (found == expected).then_some(())
    })
    .await;
    for follower in followers {
        assert!(!follower.is_finished());
        follower.abort();
    }
    assert_eq!(totals(&tenant, &id).await, expected);
}

#[tokio::test]
async fn a_lost_answer_to_the_commit_counts_once() {
    let (app, tap) = App::tapped().await;
    let tenant = app.tenant();
    let id = new_id();
    let p = events(&app, &tenant, &[1, 1]).await;
    let mut from = "";
    for through in &p {
        tap.lose_commit("");
        let request = consuming(&tenant, &id, 1, [from, through]);
        let answer = accumulate(&tenant, request).await.unwrap();
        assert!(tap.has_lost_commit());
        assert_eq!(&answer.bridge_state.unwrap().consumed_through, through);
        from = through;
    }
    assert_eq!(totals(&tenant, &id).await, (2, 2));
}

#[tokio::test]
async fn the_lag_is_counted_up_to_a_thousand() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_id();
    let p = events(&app, &tenant, &[1]).await;
    accumulate(&tenant, consuming(&tenant, &id, 1, ["", &p[0]]))
        .await
        .unwrap();
    let many = format!(
        "INSERT INTO fsm_transitions (id, entity_id, entity_type, to_state, transition_event, namespace)
         SELECT gen_random_uuid(), gen_random_uuid(), 'order', 'NEW', 'create', '{}'
           FROM generate_series(1, 1100)",
        tenant.namespace
    );
    execute(&app, &many).await;
    assert_eq!(get(&tenant, &id).await.unwrap().consumer_lag, Some(1000));
    let list = ListBridgeStatesRequest {
        namespace: tenant.namespace.clone(),
        ..ListBridgeStatesRequest::default()
    };
    let list = client(&tenant).list_bridge_states(list).await.unwrap();
    let bridges = list.into_inner().bridge_states;
    assert_eq!(bridges[0].consumer_lag, Some(1000));
}

/// The age is that of the oldest row that the slowest bridge has not consumed.
#[tokio::test]
async fn the_lag_of_the_slowest_bridge_is_a_metric() {
    let (app, tenant) = App::with_tenant().await;
    let p = events(&app, &tenant, &[1, 1, 1]).await;
    for through in [&p[0], &p[1]] {
        let request = consuming(&tenant, &new_id(), 1, ["", through]);
        accumulate(&tenant, request).await.unwrap();
    }
    let done = app.tenant();
    let last = events(&app, &done, &[1]).await.remove(0);
    let id = new_id();
    let started = upsert(&done, bridge(&done, &id)).await.unwrap();
    let start = started.transition.unwrap().position;
    assert!(start > last);
    app.wait_for_horizon(&start).await;
    let all = consuming(&done, &id, 1, ["", &start]);
    accumulate(&done, all).await.unwrap();
    let ages = "UPDATE fsm_transitions SET created_at = created_at - interval '1 hour' * number
                  FROM (SELECT id, 10 - row_number() OVER (ORDER BY xid, seq) AS number
                          FROM fsm_transitions) aged WHERE aged.id = fsm_transitions.id";
    execute(&app, ages).await;
    // A replica with a port for metrics samples as soon as it serves.
    let replica = App::start_on(app.schema.clone(), |config| {
        config.metrics_listen = Some((Ipv4Addr::LOCALHOST, 0).into());
    })
    .await;
    let lag = |namespace: &str| {
        let labels = [("namespace", namespace)];
        replica
            .figures()
            .try_sum("bridgebook_consumer_lag_seconds", &labels)
    };
    let lag_of_slowest = eventually("the lag is sampled", || async { lag(&tenant.namespace) });
    let hours = lag_of_slowest.await / 3600.0;
    // The oldest row is 9 hours old, and consumed.
    assert!((8.0..8.1).contains(&hours), "{hours} h");
    assert_eq!(lag(&done.namespace), Some(0.0));
    assert_eq!(lag("(others)"), Some(0.0));
}
