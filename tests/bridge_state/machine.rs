//! Bridges in a namespace with a machine for them.

use bridgebook::proto::v1::{
    AccumulateBridgeStateRequest, PutMachineRequest, UpsertBridgeStateRequest,
};
use diesel_async::SimpleAsyncConnection;
use tonic::Code;
use tonic_types::StatusExt;

use super::{accumulate, batch, bridge, get, history, new_bridge, totals, upsert};
use crate::{
    fsm,
    support::{App, Failure, Tenant, failure, new_id},
};

fn machine_of_bridges(tenant: &Tenant) -> PutMachineRequest {
    PutMachineRequest {
        entity_type: "bridge".into(),
        ..fsm::machine(
            tenant,
            "IDLE",
            &["RETIRED"],
            &[
                ("IDLE", "fill", "ACTIVE"),
                ("ACTIVE", "drain", "IDLE"),
                ("ACTIVE", "empty", "IDLE"),
                ("IDLE", "retire", "RETIRED"),
            ],
        )
    }
}

#[tokio::test]
async fn a_bridge_starts_and_moves_by_its_machine() {
    let (app, tenant) = App::with_tenant().await;
    fsm::put(&tenant, machine_of_bridges(&tenant))
        .await
        .unwrap();
    let id = new_id();
    let not_allowed = Failure::new(Code::FailedPrecondition, "MOVE_NOT_ALLOWED");
    assert_eq!(
        failure(upsert(&tenant, bridge(&tenant, &id)).await),
        not_allowed
    );
    // The machine determines the initial state.
    accumulate(&tenant, batch(&tenant, &id, 1)).await.unwrap();
    let to = |state: &str, event: &str| UpsertBridgeStateRequest {
        current_fsm_state: state.into(),
        transition_event: event.into(),
        ..bridge(&tenant, &id)
    };
    upsert(&tenant, to("ACTIVE", "")).await.unwrap();
    upsert(&tenant, to("IDLE", "empty")).await.unwrap();
    // An event alone determines the state.
    upsert(&tenant, to("", "fill")).await.unwrap();
    // Without an event, a bridge that is where it should be stays.
    let stays = upsert(&tenant, to("ACTIVE", "")).await.unwrap();
    assert!(stays.transition.is_none());
    upsert(&tenant, to("", "drain")).await.unwrap();
    let moves = [
        ("start", "IDLE"),
        ("fill", "ACTIVE"),
        ("empty", "IDLE"),
        ("fill", "ACTIVE"),
        ("drain", "IDLE"),
    ];
    let moves = moves.map(|(event, state)| (event.to_owned(), state.to_owned()));
    assert_eq!(history(&tenant, &id).await, moves);

    let before = get(&tenant, &id).await.unwrap();
    let refused = AccumulateBridgeStateRequest {
        current_fsm_state: "LOST".into(),
        ..batch(&tenant, &id, 1)
    };
    let status = accumulate(&tenant, refused).await.unwrap_err();
    let details = status.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    assert_eq!(metadata["current_state"], "IDLE");
    assert_eq!(metadata["allowed_moves"], "fill=ACTIVE,retire=RETIRED");
    assert_eq!(failure::<()>(Err(status)), not_allowed);
    assert_eq!(
        failure(upsert(&tenant, to("ACTIVE", "drain")).await),
        not_allowed
    );
    assert_eq!(get(&tenant, &id).await.unwrap(), before);
    assert_eq!(totals(&tenant, &id).await, (1, 1));

    // Another namespace has no machine that determines the state of an event.
    let other = app.tenant();
    let id = new_bridge(&other).await;
    let nowhere = UpsertBridgeStateRequest {
        current_fsm_state: String::new(),
        transition_event: "fill".into(),
        ..bridge(&other, &id)
    };
    let refused = failure(upsert(&other, nowhere).await);
    assert_eq!(refused, Failure::invalid(&["current_fsm_state"]));
}

/// The rules of RecordTransition: an event is a move, also in the state that it leads to.
#[tokio::test]
async fn an_event_is_a_move_of_the_machine_or_it_is_rejected() {
    let (_app, tenant) = App::with_tenant().await;
    let machine = PutMachineRequest {
        entity_type: "bridge".into(),
        ..fsm::machine(
            &tenant,
            "BUSY",
            &[],
            &[("BUSY", "more", "BUSY"), ("BUSY", "rest", "IDLE")],
        )
    };
    fsm::put(&tenant, machine).await.unwrap();
    let id = new_id();
    let by = |state: &str, event: &str| UpsertBridgeStateRequest {
        current_fsm_state: state.into(),
        transition_event: event.into(),
        ..bridge(&tenant, &id)
    };
    let not_allowed = Failure::new(Code::FailedPrecondition, "MOVE_NOT_ALLOWED");
    // An event alone is meant for a bridge that exists, so it starts none.
    assert_eq!(failure(upsert(&tenant, by("", "more")).await), not_allowed);
    let first = upsert(&tenant, by("BUSY", "begin")).await.unwrap();
    assert_eq!(first.bridge_state.unwrap().revision, 1);

    let moved = upsert(&tenant, by("BUSY", "more")).await.unwrap();
    let transition = moved.transition.expect("a move from BUSY to BUSY");
    assert_eq!(transition.from_state.as_deref(), Some("BUSY"));
    assert_eq!(moved.bridge_state.unwrap().revision, 2);
    // The retry of the last change moves nothing.
    assert!(!upsert(&tenant, by("BUSY", "more")).await.unwrap().applied);
    let again = AccumulateBridgeStateRequest {
        transition_event: "more".into(),
        ..batch(&tenant, &id, 1)
    };
    assert!(
        accumulate(&tenant, again)
            .await
            .unwrap()
            .transition
            .is_some()
    );
    for (state, event) in [("BUSY", "nonsense"), ("", "nonsense"), ("IDLE", "more")] {
        let refused = AccumulateBridgeStateRequest {
            current_fsm_state: state.into(),
            transition_event: event.into(),
            ..batch(&tenant, &id, 1)
        };
        assert_eq!(failure(accumulate(&tenant, refused).await), not_allowed);
        assert_eq!(
            failure(upsert(&tenant, by(state, event)).await),
            not_allowed
        );
    }
    let moves = [("begin", "BUSY"), ("more", "BUSY"), ("more", "BUSY")];
    let moves = moves.map(|(event, state)| (event.to_owned(), state.to_owned()));
    assert_eq!(history(&tenant, &id).await, moves);
    assert_eq!(totals(&tenant, &id).await, (1, 1));
}

#[tokio::test]
async fn without_a_machine_every_event_is_a_move() {
    let (_app, tenant) = App::with_tenant().await;
    let id = new_bridge(&tenant).await;
    let more = UpsertBridgeStateRequest {
        transition_event: "more".into(),
        ..bridge(&tenant, &id)
    };
    assert!(upsert(&tenant, more).await.unwrap().transition.is_some());
    let moves = [("start", "ACTIVE"), ("more", "ACTIVE")];
    let moves = moves.map(|(event, state)| (event.to_owned(), state.to_owned()));
    assert_eq!(history(&tenant, &id).await, moves);
}

#[tokio::test]
async fn a_machine_does_not_strand_bridges() {
    let (_app, tenant) = App::with_tenant().await;
    new_bridge(&tenant).await;
    let lost = bridge(&tenant, &new_id());
    upsert(
        &tenant,
        UpsertBridgeStateRequest {
            current_fsm_state: "LOST".into(),
            ..lost
        },
    )
    .await
    .unwrap();
    let status = fsm::put(&tenant, machine_of_bridges(&tenant))
        .await
        .unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "ENTITIES_STRANDED");
    assert_eq!(info.metadata["stranded_states"], "LOST=1");
    let allowed = PutMachineRequest {
        allow_stranded: true,
        ..machine_of_bridges(&tenant)
    };
    fsm::put(&tenant, allowed).await.unwrap();
}

/// A live copy of the bridges removes those that the journal has as DELETED.
#[tokio::test]
async fn only_a_deletion_leads_to_deleted() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_bridge(&tenant).await;
    let deleted = UpsertBridgeStateRequest {
        current_fsm_state: "DELETED".into(),
        ..bridge(&tenant, &id)
    };
    let new = UpsertBridgeStateRequest {
        bridge_id: new_id(),
        ..deleted.clone()
    };
    let invalid = Failure::invalid(&["current_fsm_state"]);
    for request in [deleted, new] {
        assert_eq!(failure(upsert(&tenant, request).await), invalid);
    }
    let accumulated = AccumulateBridgeStateRequest {
        current_fsm_state: "DELETED".into(),
        ..batch(&tenant, &id, 1)
    };
    assert_eq!(failure(accumulate(&tenant, accumulated).await), invalid);
    let machine = |initial_state: &str| PutMachineRequest {
        entity_type: "bridge".into(),
        ..fsm::machine(&tenant, initial_state, &[], &[("ACTIVE", "end", "DELETED")])
    };
    let refused = failure(fsm::put(&tenant, machine("ACTIVE")).await);
    assert_eq!(refused, Failure::invalid(&["moves[0].to_state"]));
    let refused = failure(fsm::put(&tenant, machine("DELETED")).await);
    assert!(refused.fields.contains(&"initial_state".to_owned()));
    // A machine that was put before this rule does not lead there, either.
    let renamed = PutMachineRequest {
        entity_type: "bridge".into(),
        ..fsm::machine(&tenant, "ACTIVE", &[], &[("ACTIVE", "end", "ENDED")])
    };
    fsm::put(&tenant, renamed).await.unwrap();
    let rename = "UPDATE fsm_machines
                     SET definition = replace(definition::text, 'ENDED', 'DELETED')::jsonb";
    let mut connection = app.schema.connect().await;
    connection.batch_execute(rename).await.unwrap();
    let by_event = UpsertBridgeStateRequest {
        current_fsm_state: String::new(),
        transition_event: "end".into(),
        ..bridge(&tenant, &id)
    };
    assert_eq!(failure(upsert(&tenant, by_event).await), invalid);
}
