//! Bridges in a namespace with a machine for them.

use bridgebook::proto::v1::{
    AccumulateBridgeStateRequest, PutMachineRequest, UpsertBridgeStateRequest,
};
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
    // An event alone determines the state. An existing bridge stays where it is.
    upsert(&tenant, to("", "fill")).await.unwrap();
    assert!(
        upsert(&tenant, to("ACTIVE", "fill"))
            .await
            .unwrap()
            .transition
            .is_none()
    );
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
