//! A stream that begins with the present states.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bridgebook::proto::v1::{
    UpsertBridgeStateRequest, WatchTransitionsRequest, WatchedState, WorkflowState,
    bridge_state_service_client::BridgeStateServiceClient, watch_transitions_request::Begin,
    watch_transitions_response::Message,
};
use diesel_async::SimpleAsyncConnection;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::{Watching, all, client, delay_entities, make_moves};
use crate::{
    fsm::{new_order, record, transition},
    support::{App, Failure, Tenant, eventually, failure, new_id},
};

/// The states of entities, by type and id.
type Copy = BTreeMap<(String, String), String>;

fn with_snapshot(tenant: &Tenant) -> WatchTransitionsRequest {
    WatchTransitionsRequest {
        with_snapshot: true,
        ..all(tenant)
    }
}

/// Opens a stream. Returns its snapshot, and the stream after it is ready.
async fn open(tenant: &Tenant, request: WatchTransitionsRequest) -> (Copy, Watching) {
    let stream = Box::pin(async { client(tenant).watch_transitions(request).await });
    let mut watching = Watching {
        stream: stream.await.unwrap().into_inner(),
        ready: String::new(),
        position: String::new(),
    };
    let mut copy = Copy::new();
    loop {
        match watching.message().await.unwrap() {
            Message::Snapshot(part) => {
                for it in part.states {
                    let WatchedState {
                        entity_type,
                        entity_id,
                        current_state,
                    } = it;
                    let twice = copy.insert((entity_type, entity_id), current_state);
                    assert_eq!(twice, None, "each entity once");
                }
            }
            Message::Ready(ready) => {
                watching.ready = ready.position;
                return (copy, watching);
            }
            other => panic!("before ready: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_snapshot_has_the_present_state_of_every_kind_of_entity() {
    let (app, tenant) = App::with_tenant().await;
    let order = new_order(&tenant).await;
    let paid = new_order(&tenant).await;
    record(&tenant, transition(&paid, "pay", "PAID"))
        .await
        .unwrap();
    let workflow = tenant.start_processing().await;
    let done = tenant.start_processing().await;
    tenant
        .transition(tenant.to(&done, WorkflowState::Completed))
        .await;
    let bridge_id = new_id();
    let upsert = UpsertBridgeStateRequest {
        namespace: tenant.namespace.clone(),
        bridge_id: bridge_id.clone(),
        current_fsm_state: "IDLE".into(),
        ..UpsertBridgeStateRequest::default()
    };
    let mut bridges = BridgeStateServiceClient::new(tenant.channel.clone());
    bridges.upsert_bridge_state(upsert).await.unwrap();
    new_order(&app.tenant()).await;
    let of = |items: &[(&str, &String, &str)]| -> Copy {
        let items = items.iter();
        items
            .map(|(kind, id, state)| (((*kind).into(), (*id).clone()), (*state).into()))
            .collect()
    };
    let orders = [("order", &order, "NEW"), ("order", &paid, "PAID")];
    let (copy, mut watching) = open(&tenant, with_snapshot(&tenant)).await;
    let others = [
        ("workflow", &workflow.id, "PROCESSING"),
        ("bridge", &bridge_id, "IDLE"),
    ];
    assert_eq!(copy, of(&[&orders[..], &others[..]].concat()));
    let rows = make_moves(&tenant, 1).await;
    assert_eq!(watching.transitions(1).await, rows);
    let mut completed = with_snapshot(&tenant);
    completed.workflow_states = vec!["COMPLETED".into()];
    completed.entity_type = "workflow".into();
    assert_eq!(
        open(&tenant, completed).await.0,
        of(&[("workflow", &done.id, "COMPLETED")])
    );
    let mut one = with_snapshot(&tenant);
    one.entity_id = paid.clone();
    assert_eq!(open(&tenant, one).await.0, of(&orders[1..]));
}

#[tokio::test]
async fn a_copy_that_is_kept_by_a_stream_is_the_same_as_the_database() {
    let (app, tenant) = App::with_tenant().await;
    let mut orders = Vec::new();
    for _ in 0..5 {
        orders.push(new_order(&tenant).await);
    }
    // Writers move the orders all the time, and an open transaction keeps the horizon back, so that the
    // snapshot contains rows above it.
    let mut open_transaction = app.schema.connect().await;
    let begin = "BEGIN; SELECT pg_current_xact_id()";
    open_transaction.batch_execute(begin).await.unwrap();
    let writers = orders.iter().cloned().map(|order| {
        let tenant = tenant.clone();
        tokio::spawn(async move {
            for number in 0..60 {
                let state = format!("S{number}");
                record(&tenant, transition(&order, "step", &state))
                    .await
                    .unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut copies = Vec::new();
    for _ in 0..5 {
        copies.push(open(&tenant, with_snapshot(&tenant)).await);
    }
    open_transaction.batch_execute("ROLLBACK").await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    for (mut copy, mut watching) in copies {
        let mut seen = BTreeSet::new();
        while copy.values().any(|state| state != "S59") {
            let Message::Transitions(it) = watching.message().await.unwrap() else {
                continue;
            };
            for row in it.transitions {
                let key = (row.entity_type, row.entity_id);
                let before = copy.insert(key, row.to_state);
                assert_eq!(
                    before, row.from_state,
                    "no step is missing, and none comes twice"
                );
                assert!(seen.insert(row.position));
            }
        }
    }
}

#[tokio::test]
async fn no_bookmark_comes_before_the_transitions_that_a_snapshot_contains() {
    let (app, tenant) = App::with_tenant().await;
    let mut open_transaction = app.schema.connect().await;
    let begin = "BEGIN; SELECT pg_current_xact_id()";
    open_transaction.batch_execute(begin).await.unwrap();
    let contained = make_moves(&tenant, 1).await;
    let (copy, mut watching) = open(&tenant, with_snapshot(&tenant)).await;
    assert_eq!(copy.len(), 1);
    match watching.message().await.unwrap() {
        Message::Snapshot(part) => assert_eq!(part.states, [], "it shows that the stream is alive"),
        other => panic!("{other:?}"),
    }
    open_transaction.batch_execute("ROLLBACK").await.unwrap();
    loop {
        match watching.message().await.unwrap() {
            Message::Snapshot(part) if part.states.is_empty() => {}
            Message::Bookmark(bookmark) => {
                assert!(bookmark.position >= contained[0].position);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A second snapshot behind parts of the first one would bring back what was removed between the two.
#[tokio::test]
async fn a_snapshot_that_loses_its_connection_ends_and_repeats_no_state() {
    let (app, tenant) = App::with_tenant().await;
    // More than the buffers on the way take, so that PostgreSQL waits for the client.
    let insert = format!(
        "INSERT INTO fsm_entities
         SELECT '{}', repeat('t', 100), gen_random_uuid(), repeat('S', 50), 1, now(), now()
           FROM generate_series(1, 100000)",
        tenant.namespace
    );
    let mut database = app.schema.connect().await;
    database.batch_execute(&insert).await.unwrap();
    let stream = Box::pin(async {
        let mut fsm = client(&tenant);
        fsm.watch_transitions(with_snapshot(&tenant)).await
    });
    let mut stream = stream.await.unwrap().into_inner();
    // A query that has sent nothing may run again.
    let first = stream.message().await.unwrap().unwrap();
    let mut ids = BTreeSet::new();
    if let Some(Message::Snapshot(part)) = first.message {
        ids.extend(part.states.into_iter().map(|state| state.entity_id));
    }
    let terminate = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
          WHERE application_name = '{}' AND wait_event = 'ClientWrite'",
        app.schema.name()
    );
    eventually("PostgreSQL waits for the client", || async {
        (app.schema.count(&terminate).await > 0).then_some(())
    })
    .await;
    let end = loop {
        match stream.message().await.map(Option::unwrap) {
            Ok(message) => match message.message.unwrap() {
                Message::Snapshot(part) => {
                    for state in part.states {
                        assert!(ids.insert(state.entity_id), "a state came twice");
                    }
                }
                other => panic!("the snapshot ended as if it were complete: {other:?}"),
            },
            Err(status) => break status,
        }
    };
    assert!(!ids.is_empty() && ids.len() < 100_000, "{}", ids.len());
    let unavailable = Failure::new(Code::Unavailable, "DATABASE_UNAVAILABLE");
    assert_eq!(failure::<()>(Err(end)), unavailable);
}

#[tokio::test]
async fn nodes_are_in_the_snapshot_of_the_registry() {
    let (app, tenant) = App::with_tenant().await;
    crate::registry::register(&tenant, "snapshot-node").await;
    let registry = Tenant {
        namespace: "bridgebook.registry".into(),
        ..tenant.clone()
    };
    let (copy, _watching) = open(&registry, with_snapshot(&registry)).await;
    let sql = "SELECT count(*) FROM fsm_transitions WHERE entity_type = 'node'";
    assert_eq!(app.schema.count(sql).await, 1);
    assert_eq!(copy.len(), 1);
    let ((kind, id), state) = copy.iter().next().unwrap();
    assert_eq!((kind.as_str(), state.as_str()), ("node", "HEALTHY"));
    let same = format!("{sql} AND entity_id = '{id}'");
    assert_eq!(
        app.schema.count(&same).await,
        1,
        "the id that the journal has"
    );
}

#[tokio::test]
async fn a_snapshot_needs_one_namespace_and_begins_now() {
    let (_app, tenant) = App::with_tenant().await;
    let change = |change: fn(&mut WatchTransitionsRequest)| {
        let mut request = with_snapshot(&tenant);
        change(&mut request);
        request
    };
    for (request, field) in [
        (
            change(|it| it.namespace = "tenant-*".into()),
            "with_snapshot",
        ),
        (
            change(|it| it.begin = Some(Begin::FromStart(true))),
            "with_snapshot",
        ),
        (
            change(|it| it.begin = Some(Begin::AfterBridge(new_id()))),
            "with_snapshot",
        ),
        (
            change(|it| it.workflow_states = vec!["X".into(); 11]),
            "workflow_states",
        ),
        (
            change(|it| it.workflow_states = vec!["\0".into()]),
            "workflow_states[0]",
        ),
        (
            change(|it| it.workflow_states = vec![String::new()]),
            "workflow_states[0]",
        ),
        (
            change(|it| it.workflow_states = vec!["WORKFLOW_STATE_PENDING".into()]),
            "workflow_states[0]",
        ),
        (
            change(|it| it.workflow_states = vec!["PENDING".into(), "COMPLETE".into()]),
            "workflow_states[1]",
        ),
        (change(|it| it.to_state = "COMPLETED".into()), "to_state"),
        (
            change(|it| it.transition_event = "complete".into()),
            "transition_event",
        ),
        (
            change(|it| {
                it.with_snapshot = false;
                it.workflow_states = vec!["PENDING".into()];
            }),
            "workflow_states",
        ),
    ] {
        let refused = failure(Watching::open(&tenant, request).await.map(drop));
        assert_eq!(refused.fields, [field], "{field}");
    }
}

/// Opens a stream that does not get its snapshot for some seconds.
async fn open_delayed(app: &App, tenant: &Tenant, seconds: u32, deadline: &str) -> Watching {
    delay_entities(app, tenant, seconds).await;
    let mut request = Request::new(with_snapshot(tenant));
    let metadata = request.metadata_mut();
    // tonic's client would end the call itself.
    metadata.insert("grpc-timeout", deadline.parse().unwrap());
    let stream = Box::pin(async { client(tenant).watch_transitions(request).await });
    Watching::on(stream.await.unwrap().into_inner())
}

/// Checks that a stream ends with nothing to go on after.
async fn assert_ends_without_position(watching: Watching, code: Code, reason: &str) {
    let (messages, status) = watching.end().await;
    assert!(messages.is_empty(), "{messages:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), info.reason.as_str()), (code, reason));
    assert!(!info.metadata.contains_key("position"), "{info:?}");
}

#[tokio::test]
async fn a_deadline_within_a_snapshot_leaves_nothing_to_go_on_after() {
    let (app, tenant) = App::with_tenant().await;
    let watching = open_delayed(&app, &tenant, 3, "1S").await;
    assert_ends_without_position(watching, Code::DeadlineExceeded, "DEADLINE_EXCEEDED").await;
}

#[tokio::test]
async fn an_old_connection_ends_a_snapshot_with_nothing_to_go_on_after() {
    let app = App::start_with(|config| {
        config.limits.connection.max_age = Some(Duration::from_secs(1));
        config.limits.connection.check_interval = Duration::from_millis(100);
    });
    let app = app.await;
    let tenant = app.tenant();
    let watching = open_delayed(&app, &tenant, 3, "1H").await;
    assert_ends_without_position(watching, Code::Unavailable, "WATCH_ENDED").await;
}

#[tokio::test]
async fn a_snapshot_that_takes_long_shows_that_the_stream_is_alive() {
    let (app, tenant) = App::with_tenant().await;
    let mut watching = open_delayed(&app, &tenant, 12, "1H").await;
    let mut parts = Vec::new();
    while let Message::Snapshot(part) = watching.message().await.unwrap() {
        parts.push(part.states.len());
    }
    assert_eq!(parts, [0, 0, 1]);
}
