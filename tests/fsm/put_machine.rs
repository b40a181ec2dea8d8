use bridgebook::proto::v1::{FsmMove, PutMachineRequest};
use tonic::Code;
use tonic_types::StatusExt;

use super::{machine, new_order, order_machine, put, record, transition};
use crate::support::{App, Failure, Tenant, failure, new_id};

#[tokio::test]
async fn a_changed_definition_is_a_new_version() {
    let (_app, tenant) = App::with_tenant().await;
    let first = put(&tenant, order_machine(&tenant)).await.unwrap();
    let stored = first.machine.unwrap();
    assert!(first.created);
    assert_eq!((stored.version, stored.initial_state.as_str()), (1, "NEW"));
    assert_eq!(stored.terminal_states, ["SHIPPED", "CANCELLED"]);
    assert_eq!(stored.moves, order_machine(&tenant).moves);
    let again = put(&tenant, order_machine(&tenant)).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.machine.unwrap(), stored);

    let mut changed = order_machine(&tenant);
    changed.moves.pop();
    let second = put(&tenant, changed).await.unwrap();
    assert!(second.created);
    assert_eq!(second.machine.unwrap().version, 2);
    let back = put(&tenant, order_machine(&tenant)).await.unwrap();
    assert_eq!(back.machine.unwrap().version, 3);
}

#[tokio::test]
async fn a_stale_expected_version_aborts() {
    let (_app, tenant) = App::with_tenant().await;
    let expecting = |version| PutMachineRequest {
        expected_version: Some(version),
        ..order_machine(&tenant)
    };
    let changed = Failure::new(Code::Aborted, "VERSION_CHANGED");
    assert_eq!(failure(put(&tenant, expecting(1)).await), changed);
    assert!(put(&tenant, expecting(0)).await.unwrap().created);
    // The same definition is a retry, regardless of expected_version.
    assert!(!put(&tenant, expecting(0)).await.unwrap().created);
    let mut other = expecting(0);
    other.moves.pop();
    assert_eq!(failure(put(&tenant, other.clone()).await), changed);
    other.expected_version = Some(1);
    assert!(put(&tenant, other).await.unwrap().created);
}

#[tokio::test]
async fn every_error_of_a_definition_is_named() {
    let (_app, tenant) = App::with_tenant().await;
    let cases = [
        (
            machine(&tenant, "X", &[], &[("A", "go", "B")]),
            vec!["initial_state"],
        ),
        (
            machine(&tenant, "A", &[], &[("A", "go", "B"), ("C", "go", "B")]),
            vec!["moves[1]"],
        ),
        (
            machine(&tenant, "A", &["C"], &[("A", "go", "B")]),
            vec!["terminal_states[0]"],
        ),
        (
            machine(
                &tenant,
                "A",
                &["B"],
                &[("A", "go", "B"), ("B", "back", "A")],
            ),
            vec!["moves[1]"],
        ),
        (
            machine(&tenant, "A", &[], &[("A", "go", "B"), ("A", "go", "A")]),
            vec!["moves[1]"],
        ),
        (
            machine(&tenant, "A", &[], &[("A", "go", "B"), ("A", "go", "B")]),
            vec!["moves[1]"],
        ),
        (
            machine(
                &tenant,
                "A",
                &["B", "B"],
                &[("B", "go", "A"), ("D", "go", "A")],
            ),
            vec![
                "terminal_states[0]",
                "terminal_states[1]",
                "moves[0]",
                "moves[0]",
                "moves[1]",
            ],
        ),
    ];
    for (request, fields) in cases {
        assert_eq!(
            failure(put(&tenant, request.clone()).await),
            Failure::invalid(&fields),
            "{request:?}"
        );
    }
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let with_move = |it: FsmMove| {
        let mut request = order_machine(&tenant);
        request.moves.push(it);
        request
    };
    let good = FsmMove {
        from_state: "NEW".into(),
        transition_event: "lose".into(),
        to_state: "LOST".into(),
    };
    let cases = [
        (
            "entity_type",
            PutMachineRequest {
                entity_type: String::new(),
                ..order_machine(&tenant)
            },
        ),
        (
            "entity_type",
            PutMachineRequest {
                entity_type: "a\0".into(),
                ..order_machine(&tenant)
            },
        ),
        (
            "entity_type",
            PutMachineRequest {
                entity_type: "workflow".into(),
                ..order_machine(&tenant)
            },
        ),
        (
            "entity_type",
            PutMachineRequest {
                entity_type: "node".into(),
                ..order_machine(&tenant)
            },
        ),
        (
            "initial_state",
            PutMachineRequest {
                initial_state: "a\nb".into(),
                ..order_machine(&tenant)
            },
        ),
        (
            "expected_version",
            PutMachineRequest {
                expected_version: Some(-1),
                ..order_machine(&tenant)
            },
        ),
        (
            "terminal_states[0]",
            PutMachineRequest {
                terminal_states: vec![String::new()],
                ..order_machine(&tenant)
            },
        ),
        (
            "terminal_states",
            PutMachineRequest {
                terminal_states: vec!["A".into(); 1001],
                ..order_machine(&tenant)
            },
        ),
        (
            "moves",
            PutMachineRequest {
                moves: vec![good.clone(); 1001],
                ..order_machine(&tenant)
            },
        ),
        (
            "moves[4].from_state",
            with_move(FsmMove {
                from_state: "\u{2028}".into(),
                ..good.clone()
            }),
        ),
        (
            "moves[4].transition_event",
            with_move(FsmMove {
                transition_event: String::new(),
                ..good.clone()
            }),
        ),
        (
            "moves[4].to_state",
            with_move(FsmMove {
                to_state: "S".repeat(51),
                ..good.clone()
            }),
        ),
    ];
    for (field, request) in cases {
        assert_eq!(
            failure(put(&tenant, request).await),
            Failure::invalid(&[field])
        );
    }
    assert!(put(&tenant, with_move(good)).await.unwrap().created);
}

async fn stranded(tenant: &Tenant, request: PutMachineRequest) -> (String, String) {
    let status = put(tenant, request).await.unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap().clone();
    assert_eq!(
        (status.code(), info.reason.as_str()),
        (Code::FailedPrecondition, "ENTITIES_STRANDED")
    );
    assert!(details.precondition_failure().is_some());
    (
        info.metadata["stranded_count"].clone(),
        info.metadata["stranded_states"].clone(),
    )
}

#[tokio::test]
async fn entities_are_not_stranded_unless_allowed() {
    let (app, tenant) = App::with_tenant().await;
    put(&tenant, order_machine(&tenant)).await.unwrap();
    for _ in 0..2 {
        let order = new_order(&tenant).await;
        record(&tenant, transition(&order, "pay", ""))
            .await
            .unwrap();
    }
    let order = new_order(&tenant).await;
    // Entities of other tenants and of other types do not count.
    let stranger = app.tenant();
    new_order(&stranger).await;
    let other = v1_other(&new_id());
    record(&tenant, other).await.unwrap();

    let small = machine(&tenant, "OPEN", &["DONE"], &[("OPEN", "finish", "DONE")]);
    assert_eq!(
        stranded(&tenant, small.clone()).await,
        ("3".into(), "NEW=1,PAID=2".into())
    );
    let half = machine(&tenant, "NEW", &["DONE"], &[("NEW", "finish", "DONE")]);
    assert_eq!(stranded(&tenant, half).await, ("2".into(), "PAID=2".into()));
    let allowed = PutMachineRequest {
        allow_stranded: true,
        ..small
    };
    assert_eq!(
        put(&tenant, allowed)
            .await
            .unwrap()
            .machine
            .unwrap()
            .version,
        2
    );
    // A stranded entity stays until a machine has its state again.
    let refused = failure(record(&tenant, transition(&order, "pay", "")).await);
    assert_eq!(
        refused,
        Failure::new(Code::FailedPrecondition, "MOVE_NOT_ALLOWED")
    );
    put(
        &tenant,
        PutMachineRequest {
            allow_stranded: true,
            ..order_machine(&tenant)
        },
    )
    .await
    .unwrap();
    record(&tenant, transition(&order, "pay", ""))
        .await
        .unwrap();
}

fn v1_other(id: &str) -> bridgebook::proto::v1::NewTransition {
    bridgebook::proto::v1::NewTransition {
        entity_type: "parcel".into(),
        ..transition(id, "create", "SOMEWHERE")
    }
}

/// Machines with and without the state LEGACY are put in turns while entities move there.
/// No machine may strand one of them.
#[tokio::test(flavor = "multi_thread")]
async fn no_entity_is_stranded_by_a_race() {
    let (app, tenant) = App::with_tenant().await;
    let with = machine(
        &tenant,
        "NEW",
        &[],
        &[("NEW", "age", "LEGACY"), ("NEW", "stay", "NEW")],
    );
    let without = machine(&tenant, "NEW", &[], &[("NEW", "stay", "NEW")]);
    put(&tenant, with.clone()).await.unwrap();
    for _ in 0..20 {
        let orders = futures_util::future::join_all((0..8).map(|_| new_order(&tenant))).await;
        let moves = orders
            .iter()
            .map(|id| record(&tenant, transition(id, "age", "")));
        let (put, moved) = tokio::join!(
            put(&tenant, without.clone()),
            futures_util::future::join_all(moves)
        );
        let in_legacy = app
            .schema
            .count("SELECT count(*) FROM fsm_entities WHERE current_state = 'LEGACY'")
            .await;
        match put {
            Ok(_) => assert_eq!(in_legacy, 0, "stranded"),
            Err(_) => assert!(in_legacy > 0),
        }
        assert_eq!(
            moved.iter().filter(|it| it.is_ok()).count() as i64,
            in_legacy
        );
        // Again with an empty table.
        let mut connection = app.schema.connect().await;
        diesel_async::SimpleAsyncConnection::batch_execute(
            &mut connection,
            "DELETE FROM fsm_entities",
        )
        .await
        .unwrap();
        super::put(&tenant, with.clone()).await.unwrap();
    }
}

/// Nodes put their machine at startup, and many start at once.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_puts_on_two_replicas_succeed() {
    let (app, tenant) = App::with_tenant().await;
    let other = app.replica().await;
    let elsewhere = Tenant {
        channel: other.channel.clone(),
        ..tenant.clone()
    };
    let both = [&tenant, &elsewhere];
    let same = (0..10).map(|number| put(both[number % 2], order_machine(&tenant)));
    let answers = futures_util::future::join_all(same).await;
    let created = answers
        .into_iter()
        .filter(|it| it.as_ref().unwrap().created);
    assert_eq!(created.count(), 1);
    let others = (0..10).map(|number| {
        let stay = format!("stay{number}");
        let request = machine(&tenant, "NEW", &[], &[("NEW", &stay, "NEW")]);
        put(both[number % 2], request)
    });
    let answers = futures_util::future::join_all(others).await;
    let versions = answers
        .into_iter()
        .map(|it| it.unwrap().machine.unwrap().version);
    let versions: std::collections::BTreeSet<_> = versions.collect();
    assert_eq!(versions, (2..12).collect());
}
