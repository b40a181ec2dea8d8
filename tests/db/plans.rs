//! How PostgreSQL gets at the rows: by which index, and how many it reads for them.

use bridgebook::proto::v1::{ListTransitionsRequest, StartWorkflowRequest, WorkflowState};
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;

use crate::{
    bridge_state, fsm,
    support::{App, Schema, Tenant, eventually, new_id},
};

/// Starts the service on a schema that it migrates itself, as in production. The planner
/// breaks ties between indexes by their creation order, which a replayed schema lacks.
async fn migrated() -> (App, Tenant) {
    let app = App::start_on(Schema::empty().await, |_| {}).await;
    let tenant = app.tenant();
    (app, tenant)
}

#[tokio::test]
async fn plans_that_were_made_while_tables_were_small_still_use_the_indexes() {
    let (app, tenant) = migrated().await;
    let starts = (0..60).map(|_| StartWorkflowRequest {
        current_state: 2,
        ..tenant.new_workflow()
    });
    let workflows = join_all(starts.map(|request| tenant.start_as(request))).await;
    let mut admin = app.schema.connect().await;
    admin.batch_execute("ANALYZE").await.unwrap();
    let scans = "SELECT coalesce(sum(seq_scan), 0) FROM pg_stat_user_tables
        WHERE schemaname = current_schema() AND relname IN ('workflow_executions', 'workflow_steps')";
    // Only of these tables: other tests look at the statistics of theirs.
    let reset = "SELECT pg_stat_reset_single_table_counters(relid) FROM pg_stat_user_tables
        WHERE schemaname = current_schema()";
    admin.batch_execute(reset).await.unwrap();
    for workflow in &workflows {
        tenant
            .record_steps(vec![tenant.new_step(workflow, 1)])
            .await;
        tenant.get(workflow).await;
        tenant
            .transition(tenant.to(workflow, WorkflowState::Failed))
            .await;
    }
    let used = "SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_tables
        WHERE schemaname = current_schema() AND relname = 'workflow_executions'";
    eventually("the scans are counted", || async {
        (app.schema.count(used).await > 100).then_some(())
    })
    .await;
    assert_eq!(app.schema.count(scans).await, 0);
}

/// Nobody has analyzed the tables of this schema, so PostgreSQL takes an index that
/// begins with the namespace for as good as the key, if a statement lets it.
#[tokio::test]
async fn batches_look_rows_up_by_their_keys_in_tables_of_which_postgresql_knows_nothing() {
    let (app, tenant) = migrated().await;
    let workflow = tenant.start().await;
    let entity_id = new_id();
    let bridge_id = bridge_state::new_bridge(&tenant).await;
    for state in ["OPEN", "CLOSED", "OPEN"] {
        let step = tenant.new_step(&workflow, 1);
        tenant.record_steps(vec![step]).await;
        tenant.get(&workflow).await;
        let turn = fsm::transition(&entity_id, "turn", state);
        fsm::record(&tenant, turn).await.unwrap();
        let batch = bridge_state::batch(&tenant, &bridge_id, 1);
        bridge_state::accumulate(&tenant, batch).await.unwrap();
        bridge_state::get(&tenant, &bridge_id).await.unwrap();
    }
    let started = tenant.to(&workflow, WorkflowState::Processing);
    tenant.transition(started).await;
    for table in [
        "workflow_executions",
        "bridge_states",
        "bridge_batches",
        "fsm_entities",
        "fsm_transitions",
    ] {
        let scans = |which: &str| {
            format!(
                "SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_indexes
                  WHERE schemaname = current_schema() AND relname = '{table}'
                    AND indexrelname LIKE '{which}'"
            )
        };
        let by_key = scans("%pkey");
        let what = format!("scans of {table} are counted");
        eventually(&what, || async {
            (app.schema.count(&by_key).await > 0).then_some(())
        })
        .await;
        let by_namespace = scans("%namespace%");
        assert_eq!(app.schema.count(&by_namespace).await, 0, "{table}");
    }
}

/// Most entities have few moves, so a plan for any of them would read them all.
#[tokio::test]
async fn a_page_of_an_entity_with_many_moves_does_not_read_the_others() {
    let (app, tenant) = migrated().await;
    let entity_id = new_id();
    let namespace = &tenant.namespace;
    let mut admin = app.schema.connect().await;
    let moves = format!(
        "INSERT INTO fsm_transitions (id, entity_id, entity_type, to_state, transition_event, namespace)
         SELECT gen_random_uuid(), CASE WHEN number % 5 = 0 THEN '{entity_id}' ELSE gen_random_uuid() END,
                'valve', 'OPEN', 'turn', '{namespace}'
           FROM generate_series(1, 50000) AS number;
         ANALYZE fsm_transitions"
    );
    admin.batch_execute(&moves).await.unwrap();
    let mut page_token = String::new();
    for _ in 0..12 {
        let request = ListTransitionsRequest {
            namespace: namespace.clone(),
            entity_type: "valve".into(),
            entity_id: entity_id.clone(),
            page_size: 10,
            page_token,
            ..ListTransitionsRequest::default()
        };
        let answer = fsm::client(&tenant).list_transitions(request).await;
        let answer = answer.unwrap().into_inner();
        assert_eq!(answer.transitions.len(), 10);
        page_token = answer.next_page_token;
    }
    let read = "SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes
        WHERE schemaname = current_schema() AND relname = 'fsm_transitions'";
    eventually("what was read is counted", || async {
        (app.schema.count(read).await > 100).then_some(())
    })
    .await;
    let read = app.schema.count(read).await;
    assert!(
        read < 1000,
        "{read} entries of indexes were read for 120 rows"
    );
}
