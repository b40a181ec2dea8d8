use bridgebook::proto::v1::NewTransition;
use futures_util::future::join_all;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{get, history, new_order, order_machine, put, record, states, transition};
use crate::support::{App, Failure, document, failure, new_id, value};

fn not_allowed() -> Failure {
    Failure::new(Code::FailedPrecondition, "MOVE_NOT_ALLOWED")
}

fn state_changed() -> Failure {
    Failure::new(Code::Aborted, "STATE_CHANGED")
}

fn metadata(status: &Status, key: &str) -> String {
    status.get_error_details().error_info().unwrap().metadata[key].clone()
}

#[tokio::test]
async fn moves_the_entity_and_journals_the_transition() {
    let (_app, tenant) = App::with_tenant().await;
    let id = new_id();
    let first = NewTransition {
        transition_id: new_id(),
        transition_data: document(json!({"by": "me"})),
        ..transition(&id, "create", "NEW")
    };
    let answer = record(&tenant, first.clone()).await.unwrap();
    assert!(answer.applied);
    let entity = answer.entity.unwrap();
    let row = answer.transition.unwrap();
    assert_eq!((entity.current_state.as_str(), entity.revision), ("NEW", 1));
    assert_eq!((&row.id, &row.entity_id), (&first.transition_id, &id));
    assert_eq!(
        (row.from_state.as_deref(), row.to_state.as_str()),
        (None, "NEW")
    );
    assert_eq!(value(row.transition_data.clone()), json!({"by": "me"}));
    let second = record(&tenant, transition(&id, "pay", "PAID"))
        .await
        .unwrap();
    let second = second.transition.unwrap();
    assert_eq!(second.from_state.as_deref(), Some("NEW"));
    assert_eq!(history(&tenant, &id).await, [row, second]);
}

#[tokio::test]
async fn a_machine_allows_only_its_moves() {
    let (_app, tenant) = App::with_tenant().await;
    put(&tenant, order_machine(&tenant)).await.unwrap();
    let id = new_id();
    // The first move must name the machine's initial state.
    for (event, to) in [("pay", "PAID"), ("pay", "")] {
        let refused = record(&tenant, transition(&id, event, to))
            .await
            .unwrap_err();
        assert_eq!(metadata(&refused, "current_state"), "");
        assert_eq!(metadata(&refused, "allowed_moves"), "*=NEW");
        let text = match to {
            "" => format!("order {id} does not exist yet; it must start in NEW"),
            to => format!(
                "order {id} does not exist yet and cannot start in {to} by {event}; it must start in NEW"
            ),
        };
        assert_eq!(refused.message(), text);
        assert_eq!(failure::<()>(Err(refused)), not_allowed());
    }
    record(&tenant, transition(&id, "anything", "NEW"))
        .await
        .unwrap();
    for (event, to) in [
        ("ship", ""),
        ("pay", "SHIPPED"),
        ("teleport", "PAID"),
        ("create", "NEW"),
    ] {
        let refused = record(&tenant, transition(&id, event, to))
            .await
            .unwrap_err();
        assert_eq!(metadata(&refused, "current_state"), "NEW");
        assert_eq!(
            metadata(&refused, "allowed_moves"),
            "pay=PAID,cancel=CANCELLED"
        );
        assert_eq!(failure::<()>(Err(refused)), not_allowed());
    }
    record(&tenant, transition(&id, "pay", "PAID"))
        .await
        .unwrap();
    // The machine determines the state to move to.
    let shipped = record(&tenant, transition(&id, "ship", "")).await.unwrap();
    assert_eq!(shipped.entity.unwrap().current_state, "SHIPPED");
    let refused = failure(record(&tenant, transition(&id, "cancel", "")).await);
    assert_eq!(refused, not_allowed());
    assert_eq!(states(&tenant, &id).await, ["NEW", "PAID", "SHIPPED"]);
}

#[tokio::test]
async fn without_a_machine_any_move_with_a_to_state_is_allowed() {
    let (_app, tenant) = App::with_tenant().await;
    let id = new_id();
    for state in ["A", "B", "B", "A"] {
        record(&tenant, transition(&id, "go", state)).await.unwrap();
    }
    let refused = failure(record(&tenant, transition(&id, "go", "")).await);
    assert_eq!(refused, Failure::invalid(&["transition.to_state"]));
    assert_eq!(get(&tenant, &id).await.unwrap().entity.unwrap().revision, 4);
}

#[tokio::test]
async fn a_given_from_state_must_be_the_current_one() {
    let (_app, tenant) = App::with_tenant().await;
    let order = new_order(&tenant).await;
    let from = |id: &str, from: &str, to: &str| NewTransition {
        from_state: Some(from.into()),
        ..transition(id, "go", to)
    };
    let refused = record(&tenant, from(&order, "PAID", "SHIPPED"))
        .await
        .unwrap_err();
    assert_eq!(metadata(&refused, "current_state"), "NEW");
    assert_eq!(failure::<()>(Err(refused)), state_changed());
    assert_eq!(
        failure(record(&tenant, from(&order, "", "NEW")).await),
        state_changed()
    );
    assert_eq!(
        failure(record(&tenant, from(&new_id(), "NEW", "PAID")).await),
        state_changed()
    );
    record(&tenant, from(&order, "NEW", "PAID")).await.unwrap();
    record(&tenant, from(&new_id(), "", "NEW")).await.unwrap();
}

#[tokio::test]
async fn a_retry_with_the_same_transition_id_is_applied_once() {
    let (app, tenant) = App::with_tenant().await;
    let order = new_order(&tenant).await;
    let wanted = NewTransition {
        transition_id: new_id(),
        ..transition(&order, "pay", "PAID")
    };
    let first = record(&tenant, wanted.clone()).await.unwrap();
    record(&tenant, transition(&order, "ship", "SHIPPED"))
        .await
        .unwrap();
    let again = record(&tenant, wanted.clone()).await.unwrap();
    assert!(first.applied && !again.applied);
    assert_eq!(first.transition, again.transition);
    assert_eq!(again.entity.unwrap().current_state, "SHIPPED");
    // The same id in upper case.
    let shouted = NewTransition {
        transition_id: wanted.transition_id.to_uppercase(),
        entity_id: wanted.entity_id.to_uppercase(),
        ..wanted.clone()
    };
    assert!(!record(&tenant, shouted).await.unwrap().applied);
    // The error has the state that the retry found.
    let looked = NewTransition {
        from_state: Some("SHIPPED".into()),
        ..wanted.clone()
    };
    assert!(!record(&tenant, looked).await.unwrap().applied);
    for other in [
        NewTransition {
            to_state: "LOST".into(),
            ..wanted.clone()
        },
        NewTransition {
            entity_id: new_id(),
            ..wanted.clone()
        },
    ] {
        assert_eq!(
            failure(record(&tenant, other).await),
            Failure::id_conflict()
        );
    }
    let stranger = app.tenant();
    assert_eq!(
        failure(record(&stranger, wanted).await),
        Failure::id_conflict()
    );
    assert_eq!(states(&tenant, &order).await, ["NEW", "PAID", "SHIPPED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_callers_racing_from_one_state_wins() {
    // Two replicas on one database, whose batches are independent.
    let (app, tenant) = App::with_tenant().await;
    let other = app.replica().await;
    let elsewhere = crate::support::Tenant {
        channel: other.channel.clone(),
        ..tenant.clone()
    };
    for round in 0..10 {
        let order = new_order(&tenant).await;
        if round == 5 {
            put(&tenant, order_machine(&tenant)).await.unwrap();
        }
        let calls = (0..20).map(|number| {
            let tenant = if number % 2 == 0 { &tenant } else { &elsewhere };
            let wanted = NewTransition {
                from_state: Some("NEW".into()),
                ..transition(&order, "pay", "PAID")
            };
            record(tenant, wanted)
        });
        let (won, lost): (Vec<_>, Vec<_>) =
            join_all(calls).await.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        for status in lost.into_iter().map(Result::unwrap_err) {
            assert_eq!(metadata(&status, "current_state"), "PAID");
            assert_eq!(failure::<()>(Err(status)), state_changed());
        }
        assert_eq!(states(&tenant, &order).await, ["NEW", "PAID"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entity_and_journal_agree_after_many_concurrent_moves() {
    let (app, tenant) = App::with_tenant().await;
    let other = app.replica().await;
    let elsewhere = crate::support::Tenant {
        channel: other.channel.clone(),
        ..tenant.clone()
    };
    let orders: Vec<_> = (0..4).map(|_| new_id()).collect();
    let calls = (0..400_usize).map(|number| {
        let tenant = if number % 2 == 0 { &tenant } else { &elsewhere };
        record(
            tenant,
            transition(&orders[number % 4], "go", &format!("S{number}")),
        )
    });
    let answers = join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
    for order in &orders {
        let history = history(&tenant, order).await;
        let entity = get(&tenant, order).await.unwrap().entity.unwrap();
        assert_eq!(history.len(), 100);
        assert_eq!(entity.revision, 100);
        assert_eq!(history.last().unwrap().to_state, entity.current_state);
        assert_eq!(history[0].from_state, None);
        for pair in history.windows(2) {
            assert_eq!(pair[1].from_state.as_ref(), Some(&pair[0].to_state));
        }
    }
}

#[tokio::test]
async fn the_same_name_in_another_namespace_is_another_entity() {
    let (app, tenant) = App::with_tenant().await;
    let order = new_order(&tenant).await;
    let stranger = app.tenant();
    record(&stranger, transition(&order, "create", "ELSEWHERE"))
        .await
        .unwrap();
    assert_eq!(states(&tenant, &order).await, ["NEW"]);
    assert_eq!(states(&stranger, &order).await, ["ELSEWHERE"]);
}

#[tokio::test]
async fn entities_of_other_services_are_refused_with_the_rpc_to_call() {
    let (_app, tenant) = App::with_tenant().await;
    for (entity_type, rpc) in [
        ("workflow", "WorkflowService/TransitionWorkflow"),
        ("bridge", "BridgeStateService/UpsertBridgeState"),
        ("node", "RegistryService/Heartbeat"),
    ] {
        let wanted = NewTransition {
            entity_type: entity_type.into(),
            ..transition(&new_id(), "go", "A")
        };
        let refused = record(&tenant, wanted).await.unwrap_err();
        assert!(refused.message().contains(rpc), "{refused:?}");
        assert_eq!(
            failure::<()>(Err(refused)),
            Failure::invalid(&["transition.entity_type"])
        );
    }
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (app, tenant) = App::with_tenant().await;
    let good = transition(&new_id(), "go", "A");
    let bad = [
        (
            "transition_id",
            NewTransition {
                transition_id: "1".into(),
                ..good.clone()
            },
        ),
        (
            "entity_type",
            NewTransition {
                entity_type: String::new(),
                ..good.clone()
            },
        ),
        (
            "entity_type",
            NewTransition {
                entity_type: "a".repeat(101),
                ..good.clone()
            },
        ),
        (
            "entity_id",
            NewTransition {
                entity_id: String::new(),
                ..good.clone()
            },
        ),
        (
            "from_state",
            NewTransition {
                from_state: Some("a\0".into()),
                ..good.clone()
            },
        ),
        (
            "to_state",
            NewTransition {
                to_state: "S".repeat(51),
                ..good.clone()
            },
        ),
        (
            "to_state",
            NewTransition {
                to_state: "1st\u{7f}".into(),
                ..good.clone()
            },
        ),
        (
            "transition_event",
            NewTransition {
                transition_event: String::new(),
                ..good.clone()
            },
        ),
        (
            "transition_event",
            NewTransition {
                transition_event: "a\nb".into(),
                ..good.clone()
            },
        ),
        (
            "transition_data",
            NewTransition {
                transition_data: document(json!({"\0": 1})),
                ..good.clone()
            },
        ),
    ];
    for (field, wanted) in bad {
        let field = format!("transition.{field}");
        assert_eq!(
            failure(record(&tenant, wanted).await),
            Failure::invalid(&[&field])
        );
    }
    let extreme = NewTransition {
        entity_type: "a".repeat(100),
        to_state: "S".repeat(50),
        transition_event: "e".repeat(100),
        ..good
    };
    assert!(record(&tenant, extreme).await.unwrap().applied);
    assert_eq!(
        app.schema.count("SELECT count(*) FROM fsm_entities").await,
        1
    );
}
