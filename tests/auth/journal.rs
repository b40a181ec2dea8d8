use bridgebook::{
    domain::role::Role,
    proto::v1::{
        DeleteWorkflowRequest, ListTransitionsRequest, NewTransition, RecordTransitionRequest,
        RegisterNodeRequest, UpsertBridgeStateRequest, WorkflowState,
    },
};

use crate::support::{App, Issued, new_id, tenant_on};

/// Returns the tokens that wrote the journal of an entity type, oldest row first.
async fn writers(app: &App, token: &Issued, of: (&str, &str)) -> Vec<Option<String>> {
    let (namespace, entity_type) = of;
    let request = ListTransitionsRequest {
        namespace: namespace.to_owned(),
        entity_type: entity_type.to_owned(),
        ..ListTransitionsRequest::default()
    };
    let mut fsm = token.client(&app.channel).fsm();
    let answer = fsm.list_transitions(request).await.unwrap().into_inner();
    let rows = answer.transitions.into_iter();
    rows.map(|row| row.token_id).collect()
}

#[tokio::test]
async fn every_journal_row_has_the_token_that_wrote_it() {
    let app = App::guarded().await;
    let one = app.issue(Role::Writer, &["team-a"]).await;
    let other = app.issue(Role::Writer, &["team-*"]).await;
    let namespace = "team-a".to_owned();
    let tenant = tenant_on(app.channel.clone());

    let mut workflows = one.client(&app.channel).workflows();
    let request = bridgebook::proto::v1::StartWorkflowRequest {
        namespace: namespace.clone(),
        ..tenant.new_workflow()
    };
    let started = workflows.start_workflow(request).await.unwrap();
    let workflow = started.into_inner().workflow.unwrap();
    let request = bridgebook::proto::v1::TransitionWorkflowRequest {
        namespace: namespace.clone(),
        ..tenant.to(&workflow, WorkflowState::Processing)
    };
    let mut others = other.client(&app.channel).workflows();
    let moved = others.transition_workflow(request).await.unwrap();
    let transition = moved.into_inner().transition.unwrap();
    assert_eq!(transition.token_id.as_deref(), Some(other.id.as_str()));
    let request = DeleteWorkflowRequest {
        namespace: namespace.clone(),
        workflow_id: workflow.id,
        ..DeleteWorkflowRequest::default()
    };
    workflows.delete_workflow(request).await.unwrap();

    let request = RecordTransitionRequest {
        namespace: namespace.clone(),
        transition: Some(NewTransition {
            entity_id: new_id(),
            entity_type: "order".into(),
            to_state: "OPEN".into(),
            transition_event: "open".into(),
            ..NewTransition::default()
        }),
    };
    let mut fsm = other.client(&app.channel).fsm();
    let recorded = fsm.record_transition(request).await.unwrap().into_inner();
    let transition = recorded.transition.unwrap();
    assert_eq!(transition.token_id.as_deref(), Some(other.id.as_str()));

    let request = UpsertBridgeStateRequest {
        namespace: namespace.clone(),
        bridge_id: new_id(),
        current_fsm_state: "ACTIVE".into(),
        ..UpsertBridgeStateRequest::default()
    };
    let mut bridges = one.client(&app.channel).bridges();
    bridges.upsert_bridge_state(request).await.unwrap();

    for (kind, expected) in [
        ("workflow", vec![&one, &other, &one]),
        ("order", vec![&other]),
        ("bridge", vec![&one]),
    ] {
        let expected = expected.iter().map(|token| Some(token.id.clone()));
        let written = writers(&app, &one, ("team-a", kind)).await;
        assert_eq!(written, expected.collect::<Vec<_>>(), "{kind}");
    }
}

#[tokio::test]
async fn node_transitions_have_the_token_of_the_change() {
    let app = App::guarded().await;
    let token = app.issue(Role::Writer, &["team-a"]).await;
    let request = RegisterNodeRequest {
        namespace: "team-a".into(),
        node_id: "node-1".into(),
        node_type: "reducer".into(),
        node_version: "1".into(),
        ..RegisterNodeRequest::default()
    };
    let mut registry = token.client(&app.channel).registry();
    registry.register_node(request).await.unwrap();
    let written = format!(
        "SELECT count(*) FROM fsm_transitions WHERE token_id = '{}' AND entity_type = 'node'",
        token.id
    );
    assert_eq!(app.schema.count(&written).await, 1);
    // The token is not public, unlike the row.
    let shown = writers(&app, &token, ("bridgebook.registry", "node")).await;
    assert_eq!(shown, [None]);
}

#[tokio::test]
async fn without_authentication_the_journal_has_no_token() {
    let (app, tenant) = App::with_tenant().await;
    tenant.start().await;
    let with_token = "SELECT count(*) FROM fsm_transitions WHERE token_id IS NOT NULL";
    assert_eq!(app.schema.count(with_token).await, 0);
}
