//! Retention: rows past their maximum age are pruned, and no others.

use std::time::Duration;

use bridgebook::{
    config::Config,
    ops::retention::model::RetentionDefaults,
    proto::v1::{
        AccumulateBridgeStateRequest, NewStamp, RecordStampRequest, RetainedTable,
        SetRetentionPolicyRequest, WorkflowState, admin_service_client::AdminServiceClient,
        bridge_state_service_client::BridgeStateServiceClient,
    },
};
use diesel_async::SimpleAsyncConnection;

use crate::support::{App, Schema, Tenant, bridgebook, eventually, new_id};

/// Ten days, in seconds.
const AGE: i64 = 864_000;

/// Sets a retention of ten days for every table, and prunes continuously.
fn prunes(config: &mut Config) {
    config.prune_interval = Duration::from_millis(20);
    config.retention = RetentionDefaults {
        workflows: Some(AGE),
        transitions: Some(AGE),
        batches: Some(AGE),
        stamps: Some(AGE),
    };
}

/// Makes a tenant's rows: a finished workflow with a step and a stamp, an unfinished one,
/// and a batch.
async fn leave_rows(tenant: &Tenant) {
    let ended = tenant.start_processing().await;
    tenant.record_steps(vec![tenant.new_step(&ended, 1)]).await;
    let stamp = RecordStampRequest {
        namespace: tenant.namespace.clone(),
        stamp: Some(NewStamp {
            workflow_id: ended.id.clone(),
            file_hash: new_id(),
            ..NewStamp::default()
        }),
    };
    tenant.client.clone().record_stamp(stamp).await.unwrap();
    tenant
        .transition(tenant.to(&ended, WorkflowState::Completed))
        .await;
    tenant.start().await;
    let batch = AccumulateBridgeStateRequest {
        namespace: tenant.namespace.clone(),
        bridge_id: new_id(),
        batch_id: new_id(),
        items_aggregated: 7,
        current_fsm_state: "ACTIVE".into(),
        ..AccumulateBridgeStateRequest::default()
    };
    let mut bridges = BridgeStateServiceClient::new(tenant.channel.clone());
    bridges.accumulate_bridge_state(batch).await.unwrap();
}

/// Makes all rows of a tenant 20 days older.
async fn age(schema: &Schema, namespace: &str) {
    let mut database = schema.connect().await;
    for (table, column) in [
        ("workflow_executions", "completed_at"),
        ("workflow_executions", "started_at"),
        ("fsm_transitions", "created_at"),
        ("bridge_batches", "created_at"),
        ("metadata_stamps", "created_at"),
    ] {
        let older = format!(
            "UPDATE {table} SET {column} = {column} - INTERVAL '20 days'
              WHERE namespace = '{namespace}'"
        );
        database.batch_execute(&older).await.unwrap();
    }
}

/// Counts a tenant's workflows, steps, stamps, transitions, batches and bridges.
async fn rows(schema: &Schema, namespace: &str) -> [i64; 6] {
    let mut counts = [0; 6];
    let tables = [
        "workflow_executions",
        "workflow_steps",
        "metadata_stamps",
        "fsm_transitions",
        "bridge_batches",
        "bridge_states",
    ];
    for (count, table) in counts.iter_mut().zip(tables) {
        let sql = format!("SELECT count(*) FROM {table} WHERE namespace = '{namespace}'");
        *count = schema.count(&sql).await;
    }
    counts
}

/// The counts of all rows, and of those that are never pruned.
const ALL: [i64; 6] = [2, 1, 1, 4, 1, 1];
const AGELESS: [i64; 6] = [1, 0, 0, 0, 0, 1];

#[tokio::test]
async fn old_rows_are_pruned_and_young_or_unfinished_ones_stay() {
    let app = App::start().await;
    let (old, young) = (app.tenant(), app.tenant());
    leave_rows(&old).await;
    leave_rows(&young).await;
    age(&app.schema, &old.namespace).await;
    assert_eq!(rows(&app.schema, &old.namespace).await, ALL);
    // Two replicas that prune at once do not disturb each other.
    let first = App::start_on(app.schema.clone(), prunes).await;
    let _second = App::start_on(app.schema.clone(), prunes).await;
    eventually("what is too old is gone", async || {
        (rows(&app.schema, &old.namespace).await == AGELESS).then_some(())
    })
    .await;
    assert_eq!(rows(&app.schema, &young.namespace).await, ALL);
    let figures = first.figures();
    let table = [("table", "fsm_transitions")];
    assert!(figures.sum("bridgebook_retention_rows_total", &table) <= 4.0);
    assert!(figures.sum("bridgebook_retention_lag_seconds", &table) >= 0.0);
}

#[tokio::test]
async fn a_policy_of_a_namespace_overrides_the_settings() {
    let app = App::start().await;
    let (kept, gone) = (app.tenant(), app.tenant());
    for tenant in [&kept, &gone] {
        leave_rows(tenant).await;
        age(&app.schema, &tenant.namespace).await;
    }
    let mut admin = AdminServiceClient::new(app.channel.clone());
    for table in [
        RetainedTable::WorkflowExecutions,
        RetainedTable::FsmTransitions,
        RetainedTable::BridgeBatches,
        RetainedTable::MetadataStamps,
    ] {
        let for_ever = SetRetentionPolicyRequest {
            namespace: kept.namespace.clone(),
            table: table.into(),
            max_age: None,
        };
        admin.set_retention_policy(for_ever).await.unwrap();
    }
    let _replica = App::start_on(app.schema.clone(), prunes).await;
    eventually("what is too old is gone", async || {
        (rows(&app.schema, &gone.namespace).await == AGELESS).then_some(())
    })
    .await;
    assert_eq!(rows(&app.schema, &kept.namespace).await, ALL);
}

#[tokio::test]
async fn the_prune_command_counts_and_deletes_only_with_its_flag() {
    let app = App::start().await;
    let tenant = app.tenant();
    leave_rows(&tenant).await;
    age(&app.schema, &tenant.namespace).await;
    let prune = |arguments: &[&str]| {
        let url = app.schema.url();
        let output = bridgebook()
            .args(["prune", "--database-url", &url])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(prune(&[]).contains("no retention is set"));
    let ten_days = ["--retain-workflows=10", "--retain-stamps=10"];
    let counted = prune(&[&ten_days[..], &["--dry-run"]].concat());
    let line = |text: &str, table: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(table) && line.contains(&tenant.namespace));
        line.unwrap_or_else(|| panic!("no {table}: {text}"))
            .to_owned()
    };
    assert!(line(&counted, "workflow_executions").contains(" 1 to remove"));
    assert_eq!(rows(&app.schema, &tenant.namespace).await, ALL);
    let removed = prune(&ten_days);
    assert!(line(&removed, "workflow_executions").contains(" 1 removed"));
    assert!(line(&removed, "metadata_stamps").contains(" 1 removed"));
    assert_eq!(
        rows(&app.schema, &tenant.namespace).await,
        [1, 0, 0, 4, 1, 1]
    );
}

#[test]
fn an_invalid_age_exits_with_64() {
    let output = bridgebook()
        .args(["prune", "--retain-stamps=-1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
}
