use bridgebook::proto::v1::{
    TransitionWorkflowRequest, TransitionWorkflowResponse, Workflow, WorkflowState,
};
use futures_util::future::join_all;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{App, Failure, Tenant, document, failure, new_id, value};

use WorkflowState::{Cancelled, Completed, Failed, Pending, Processing};

const ALL: [WorkflowState; 5] = [Pending, Processing, Completed, Failed, Cancelled];

async fn transition(
    tenant: &Tenant,
    request: TransitionWorkflowRequest,
) -> Result<TransitionWorkflowResponse, Status> {
    let answer = tenant.client.clone().transition_workflow(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Makes a workflow in a state.
async fn workflow_in(tenant: &Tenant, state: WorkflowState) -> Workflow {
    if state == Pending {
        return tenant.start().await;
    }
    let workflow = tenant.start_processing().await;
    if state == Processing {
        return workflow;
    }
    tenant
        .transition(tenant.to(&workflow, state))
        .await
        .workflow
        .unwrap()
}

#[tokio::test]
async fn the_lifecycle_allows_or_refuses_every_pair_of_states() {
    let (_app, tenant) = App::with_tenant().await;
    let allowed = [
        (Pending, Processing, "process"),
        (Pending, Failed, "fail"),
        (Pending, Cancelled, "cancel"),
        (Processing, Completed, "complete"),
        (Processing, Failed, "fail"),
        (Processing, Cancelled, "cancel"),
        (Failed, Processing, "retry"),
    ];
    for from in ALL {
        for to in ALL {
            let workflow = workflow_in(&tenant, from).await;
            let answer = transition(&tenant, tenant.to(&workflow, to)).await;
            match allowed.iter().find(|(f, t, _)| (*f, *t) == (from, to)) {
                Some((_, _, event)) => {
                    let answer = answer.unwrap();
                    assert!(answer.applied);
                    assert_eq!(answer.workflow.unwrap().current_state(), to);
                    assert_eq!(answer.transition.unwrap().transition_event, *event);
                }
                None => {
                    let expected = Failure::new(Code::FailedPrecondition, "MOVE_NOT_ALLOWED");
                    assert_eq!(failure(answer), expected, "{from:?} to {to:?}");
                    let read = tenant.get(&workflow).await.workflow.unwrap();
                    assert_eq!(read, workflow);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_refused_move_names_the_current_state_and_the_allowed_moves() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = workflow_in(&tenant, Pending).await;
    let refused = transition(&tenant, tenant.to(&workflow, Completed))
        .await
        .unwrap_err();
    let details = refused.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    assert_eq!(metadata["current_state"], "WORKFLOW_STATE_PENDING");
    assert_eq!(
        metadata["allowed_states"],
        "WORKFLOW_STATE_PROCESSING,WORKFLOW_STATE_FAILED,WORKFLOW_STATE_CANCELLED"
    );
    assert_eq!(details.precondition_failure().unwrap().violations.len(), 1);
}

#[tokio::test]
async fn a_terminal_state_sets_the_outcome_and_a_retry_clears_it() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = workflow_in(&tenant, Processing).await;
    let failed = TransitionWorkflowRequest {
        error_message: Some("disk full".into()),
        ..tenant.to(&workflow, Failed)
    };
    let failed = tenant.transition(failed).await.workflow.unwrap();
    let (start, end) = (failed.started_at.unwrap(), failed.completed_at.unwrap());
    let micros =
        (end.seconds - start.seconds) * 1_000_000 + i64::from(end.nanos - start.nanos) / 1000;
    assert_eq!(failed.execution_time_ms, Some(micros / 1000));
    assert_eq!(failed.error_message.as_deref(), Some("disk full"));
    let retried = tenant
        .transition(tenant.to(&workflow, Processing))
        .await
        .workflow
        .unwrap();
    assert_eq!(retried.completed_at, None);
    assert_eq!(retried.execution_time_ms, None);
    assert_eq!(retried.error_message, None);
    assert_eq!(tenant.get(&workflow).await.workflow.unwrap(), retried);
}

#[tokio::test]
async fn a_start_in_the_future_gives_no_negative_duration() {
    let (_app, tenant) = App::with_tenant().await;
    let request = bridgebook::proto::v1::StartWorkflowRequest {
        current_state: Processing.into(),
        started_at: Some(prost_types::Timestamp {
            seconds: 253_402_300_799,
            nanos: 0,
        }),
        ..tenant.new_workflow()
    };
    let workflow = tenant.start_as(request).await;
    let done = tenant
        .transition(tenant.to(&workflow, Completed))
        .await
        .workflow
        .unwrap();
    assert_eq!(done.execution_time_ms, Some(0));
}

#[tokio::test]
async fn a_retry_with_the_same_transition_id_is_applied_once() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = workflow_in(&tenant, Pending).await;
    let request = TransitionWorkflowRequest {
        transition_id: new_id(),
        transition_event: "picked_up".into(),
        transition_data: document(json!({"by": "node-7"})),
        expected_state: Pending.into(),
        ..tenant.to(&workflow, Processing)
    };
    let first = transition(&tenant, request.clone()).await.unwrap();
    tenant.transition(tenant.to(&workflow, Completed)).await;
    let again = transition(&tenant, request.clone()).await.unwrap();
    assert!(first.applied && !again.applied);
    assert_eq!(first.transition, again.transition);
    assert_eq!(again.workflow.unwrap().current_state(), Completed);
    let transition = again.transition.unwrap();
    assert_eq!(transition.id, request.transition_id);
    assert_eq!(transition.from_state.as_deref(), Some("PENDING"));
    assert_eq!(transition.transition_event, "picked_up");
    assert_eq!(value(transition.transition_data), json!({"by": "node-7"}));
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM fsm_transitions")
            .await,
        3
    );
}

#[tokio::test]
async fn a_transition_id_that_was_used_for_another_move_is_refused() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = workflow_in(&tenant, Pending).await;
    let request = TransitionWorkflowRequest {
        transition_id: new_id(),
        ..tenant.to(&workflow, Processing)
    };
    transition(&tenant, request.clone()).await.unwrap();
    let own = TransitionWorkflowRequest {
        to_state: Completed.into(),
        ..request.clone()
    };
    let own = transition(&tenant, own).await;
    let stranger = app.tenant();
    let theirs = stranger.start().await;
    let foreign = TransitionWorkflowRequest {
        transition_id: request.transition_id,
        ..stranger.to(&theirs, Processing)
    };
    let foreign = transition(&stranger, foreign).await;
    let (own, foreign) = (own.unwrap_err(), foreign.unwrap_err());
    assert_eq!(
        (own.message(), own.details()),
        (foreign.message(), foreign.details())
    );
    assert_eq!(failure::<()>(Err(own)), Failure::id_conflict());
    assert_eq!(
        stranger
            .get(&theirs)
            .await
            .workflow
            .unwrap()
            .current_state(),
        Pending
    );
}

#[tokio::test]
async fn a_stale_expected_state_aborts() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = workflow_in(&tenant, Processing).await;
    let request = TransitionWorkflowRequest {
        expected_state: Pending.into(),
        ..tenant.to(&workflow, Failed)
    };
    let expected = Failure::new(Code::Aborted, "STATE_CHANGED");
    assert_eq!(failure(transition(&tenant, request).await), expected);
}

#[tokio::test]
async fn one_of_many_callers_racing_from_one_state_wins() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = workflow_in(&tenant, Pending).await;
    let calls = (0..50).map(|_| {
        let request = TransitionWorkflowRequest {
            transition_id: new_id(),
            expected_state: Pending.into(),
            ..tenant.to(&workflow, Processing)
        };
        transition(&tenant, request)
    });
    let answers = join_all(calls).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for answer in answers.into_iter().filter(Result::is_err) {
        assert_eq!(
            failure(answer),
            Failure::new(Code::Aborted, "STATE_CHANGED")
        );
    }
    let moves = "SELECT count(*) FROM fsm_transitions WHERE from_state = 'PENDING'";
    assert_eq!(app.schema.count(moves).await, 1);
}

#[tokio::test]
async fn state_and_journal_agree_after_many_concurrent_moves() {
    let (app, tenant) = App::with_tenant().await;
    let workflows = join_all((0..4).map(|_| tenant.start_processing())).await;
    let calls = (0..200).map(|number| {
        let to = if number % 3 == 0 { Processing } else { Failed };
        transition(&tenant, tenant.to(&workflows[number % 4], to))
    });
    let applied = join_all(calls)
        .await
        .into_iter()
        .filter(Result::is_ok)
        .count();
    let moves = app
        .schema
        .count("SELECT count(*) FROM fsm_transitions WHERE from_state IS NOT NULL");
    assert_eq!(moves.await, applied as i64);
    let broken = "SELECT count(*) FROM (
        SELECT from_state, lag(to_state) OVER (PARTITION BY entity_id ORDER BY seq) AS before
          FROM fsm_transitions) moves WHERE from_state IS DISTINCT FROM before";
    assert_eq!(app.schema.count(broken).await, 0);
    let wrong = "SELECT count(*) FROM workflow_executions w WHERE current_state <> (
        SELECT to_state FROM fsm_transitions WHERE entity_id = w.id ORDER BY seq DESC LIMIT 1)";
    assert_eq!(app.schema.count(wrong).await, 0);
}

#[tokio::test]
async fn metadata_is_merged_as_a_json_merge_patch() {
    let (_app, tenant) = App::with_tenant().await;
    let request = bridgebook::proto::v1::StartWorkflowRequest {
        metadata: document(json!({"keep": 1, "drop": 2, "deep": {"a": 1, "b": 2}})),
        ..tenant.new_workflow()
    };
    let workflow = tenant.start_as(request).await;
    let request = TransitionWorkflowRequest {
        metadata: document(json!({"drop": null, "deep": {"b": null, "c": 3}, "new": []})),
        ..tenant.to(&workflow, Processing)
    };
    tenant.transition(request).await;
    let merged = json!({"keep": 1, "deep": {"a": 1, "c": 3}, "new": []});
    let read = tenant.get(&workflow).await.workflow.unwrap();
    assert_eq!(value(read.metadata), merged);
    tenant.transition(tenant.to(&workflow, Completed)).await;
    let read = tenant.get(&workflow).await.workflow.unwrap();
    assert_eq!(value(read.metadata), merged);
}

#[tokio::test]
async fn a_merge_that_grows_past_the_limit_changes_nothing() {
    let (_app, tenant) = App::with_tenant().await;
    let half = "x".repeat(600 * 1024);
    let request = bridgebook::proto::v1::StartWorkflowRequest {
        metadata: document(json!({ "a": half })),
        ..tenant.new_workflow()
    };
    let workflow = tenant.start_as(request).await;
    let request = TransitionWorkflowRequest {
        metadata: document(json!({ "b": half })),
        ..tenant.to(&workflow, Processing)
    };
    let failed = failure(transition(&tenant, request).await);
    assert_eq!(failed, Failure::invalid(&["metadata"]));
    assert_eq!(tenant.get(&workflow).await.workflow.unwrap(), workflow);
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = workflow_in(&tenant, Processing).await;
    let good = tenant.to(&workflow, Failed);
    let message = |text: &str| TransitionWorkflowRequest {
        error_message: Some(text.into()),
        ..good.clone()
    };
    let bad = [
        (
            "workflow_id",
            TransitionWorkflowRequest {
                workflow_id: "7".into(),
                ..good.clone()
            },
        ),
        (
            "to_state",
            TransitionWorkflowRequest {
                to_state: 0,
                ..good.clone()
            },
        ),
        (
            "to_state",
            TransitionWorkflowRequest {
                to_state: 6,
                ..good.clone()
            },
        ),
        (
            "expected_state",
            TransitionWorkflowRequest {
                expected_state: -5,
                ..good.clone()
            },
        ),
        (
            "transition_id",
            TransitionWorkflowRequest {
                transition_id: "x".into(),
                ..good.clone()
            },
        ),
        (
            "transition_event",
            TransitionWorkflowRequest {
                transition_event: "a\nb".into(),
                ..good.clone()
            },
        ),
        (
            "transition_event",
            TransitionWorkflowRequest {
                transition_event: "e".repeat(101),
                ..good.clone()
            },
        ),
        (
            "transition_data",
            TransitionWorkflowRequest {
                transition_data: document(json!({"a": "\0"})),
                ..good.clone()
            },
        ),
        ("error_message", message("")),
        ("error_message", message("a\0b")),
        ("error_message", message(&"ü".repeat(65_537))),
        (
            "error_message",
            TransitionWorkflowRequest {
                to_state: Completed.into(),
                ..message("no")
            },
        ),
        (
            "metadata",
            TransitionWorkflowRequest {
                metadata: document(json!({"\0": 1})),
                ..good.clone()
            },
        ),
    ];
    for (field, request) in bad {
        assert_eq!(
            failure(transition(&tenant, request).await),
            Failure::invalid(&[field])
        );
    }
    let longest = message(&"ü".repeat(65_536));
    assert!(transition(&tenant, longest).await.unwrap().applied);
}
