//! Names of types, states and events.

use bridgebook::proto::v1::{NewTransition, PutMachineRequest};
use tonic_types::StatusExt;

use super::{machine, put, record, transition};
use crate::support::{App, new_id};

/// Names of Step Functions, XState and Jira.
#[tokio::test]
async fn names_have_blanks_and_punctuation() {
    let (_app, tenant) = App::with_tenant().await;
    let machine = PutMachineRequest {
        entity_type: "Support request".into(),
        ..machine(
            &tenant,
            "To do",
            &[],
            &[
                ("To do", "is it urgent? (y=1, n=0)", "In review…"),
                ("To do", "100 % done", "xstate.init*"),
            ],
        )
    };
    put(&tenant, machine).await.unwrap();
    let entity_id = new_id();
    let to = |event: &str, state: &str| NewTransition {
        entity_type: "Support request".into(),
        to_state: state.into(),
        ..transition(&entity_id, event, state)
    };
    record(&tenant, to("create", "To do")).await.unwrap();
    // The lists of an error stay readable for programs.
    let refused = record(&tenant, to("create", "To do")).await.unwrap_err();
    let details = refused.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    assert_eq!(
        metadata["allowed_moves"],
        "is it urgent? (y%3D1%2C n%3D0)=In review%E2%80%A6,100 %25 done=xstate.init%2A"
    );
    // Its text has the names as they are sent.
    let expected =
        "allowed from there: is it urgent? (y=1, n=0)=In review…, 100 % done=xstate.init*";
    assert!(refused.message().ends_with(expected), "{refused:?}");
    let moved = to("is it urgent? (y=1, n=0)", "");
    let entity = record(&tenant, moved).await.unwrap().entity.unwrap();
    assert_eq!(entity.current_state, "In review…");
}
