//! Retention: rows past their maximum age are pruned, and no others.

use std::time::{Duration, Instant};

use bridgebook::{
    config::Config,
    ops::retention::model::RetentionDefaults,
    proto::v1::{
        AccumulateBridgeStateRequest, ListWorkflowsRequest, NewStamp, RecordStampRequest,
        RetainedTable, SetRetentionPolicyRequest, WorkflowState,
        admin_service_client::AdminServiceClient,
        bridge_state_service_client::BridgeStateServiceClient,
    },
};
use diesel_async::SimpleAsyncConnection;

use crate::support::{App, Schema, Tenant, bridgebook, eventually, new_id};

/// Ten days, in seconds.
const AGE: i64 = 864_000;

/// Sets a retention of ten days for every table, and prunes continuously.
pub fn prunes(config: &mut Config) {
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

/// Makes ended workflows of a namespace, 20 days old, each with steps and stamps.
pub async fn leave_workflows(
    schema: &Schema,
    namespace: &str,
    count: i64,
    steps: i64,
    stamps: i64,
) {
    let insert = format!(
        "WITH w AS (
            INSERT INTO workflow_executions (id, correlation_id, workflow_type, current_state,
                namespace, completed_at)
            SELECT gen_random_uuid(), gen_random_uuid(), 'etl', 'COMPLETED', '{namespace}',
                   now() - INTERVAL '20 days' - number * INTERVAL '1 s'
              FROM generate_series(1, {count}) AS number
            RETURNING id
         ), steps AS (
            INSERT INTO workflow_steps
                (id, namespace, workflow_id, step_name, step_order, status, step_data)
            SELECT gen_random_uuid(), '{namespace}', id, 'step', number, 'COMPLETED', '{{}}'
              FROM w, generate_series(1, {steps}) AS number
         )
         INSERT INTO metadata_stamps (id, namespace, workflow_id, file_hash, stamp_data)
         SELECT gen_random_uuid(), '{namespace}', id, 'hash', '{{}}'
           FROM w, generate_series(1, {stamps})"
    );
    let mut database = schema.connect().await;
    database.batch_execute(&insert).await.unwrap();
}

/// Records for each transaction how many rows it deletes, and how many stamps it detaches.
const COUNT_REMOVED: &str = "
    CREATE TABLE removed (xid XID8, count BIGINT);
    CREATE FUNCTION count_removed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO removed SELECT pg_current_xact_id(), count(*) FROM gone;
        RETURN NULL;
    END $$;
    CREATE TRIGGER counts AFTER DELETE ON workflow_executions
        REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION count_removed();
    CREATE TRIGGER counts AFTER DELETE ON workflow_steps
        REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION count_removed();
    CREATE TRIGGER counts AFTER UPDATE ON metadata_stamps
        REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION count_removed()";

#[tokio::test]
async fn no_transaction_removes_many_rows_whatever_hangs_on_a_workflow() {
    let app = App::start().await;
    let tenant = app.tenant();
    let namespace = &tenant.namespace;
    for (count, steps, stamps) in [(250, 3, 1), (1, 1200, 700), (3, 499, 0), (120, 0, 0)] {
        leave_workflows(&app.schema, namespace, count, steps, stamps).await;
    }
    let mut database = app.schema.connect().await;
    database.batch_execute(COUNT_REMOVED).await.unwrap();
    let workflows_only = |config: &mut Config| {
        prunes(config);
        config.retention.stamps = None;
    };
    let _replica = App::start_on(app.schema.clone(), workflows_only).await;
    eventually("all workflows are gone", async || {
        let left = "SELECT count(*) FROM workflow_executions";
        (app.schema.count(left).await == 0).then_some(())
    })
    .await;
    assert_eq!(rows(&app.schema, namespace).await, [0, 0, 950, 0, 0, 0]);
    let most = "SELECT max(sum) FROM (SELECT sum(count) FROM removed GROUP BY xid) it";
    let most = app.schema.count(most).await;
    assert!(most <= 600, "a transaction removed {most} rows");
    let attached = "SELECT count(*) FROM metadata_stamps WHERE workflow_id IS NOT NULL";
    assert_eq!(app.schema.count(attached).await, 0);
}

/// The removal of a workflow stops after its first step.
#[tokio::test]
async fn an_expired_workflow_with_many_steps_is_gone_before_any_of_them() {
    let app = App::start().await;
    let tenant = app.tenant();
    leave_workflows(&app.schema, &tenant.namespace, 1, 1200, 0).await;
    let read = async || {
        let request = ListWorkflowsRequest {
            namespace: tenant.namespace.clone(),
            ..ListWorkflowsRequest::default()
        };
        let page = tenant.client.clone().list_workflows(request).await;
        let workflows = page.unwrap().into_inner().workflows;
        workflows.iter().map(|it| it.step_count).collect::<Vec<_>>()
    };
    // It counts no further.
    assert_eq!(read().await, [1000]);
    let stop = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE 'it is refused';
         END $$;
         CREATE TRIGGER refuses BEFORE DELETE ON workflow_steps
             FOR EACH ROW EXECUTE FUNCTION refuse()";
    let mut database = app.schema.connect().await;
    database.batch_execute(stop).await.unwrap();
    let mut replica = App::start_on(app.schema.clone(), prunes).await;
    replica.expect_errors();
    eventually("the workflow is gone", async || {
        read().await.is_empty().then_some(())
    })
    .await;
    let steps = "SELECT count(*) FROM workflow_steps";
    assert_eq!(app.schema.count(steps).await, 1200);
    let allow = "DROP TRIGGER refuses ON workflow_steps";
    database.batch_execute(allow).await.unwrap();
    eventually("its steps are gone", async || {
        (app.schema.count(steps).await == 0).then_some(())
    })
    .await;
}

/// Makes every delete of a namespace's workflows fail.
async fn refuse_deletes(schema: &Schema, namespace: &str) {
    fail_deletes(schema, namespace, "it is refused").await;
}

async fn fail_deletes(schema: &Schema, namespace: &str, message: &str) {
    let refuse = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF OLD.namespace = '{namespace}' THEN RAISE '{message}'; END IF;
             RETURN OLD;
         END $$;
         CREATE TRIGGER refuses BEFORE DELETE ON workflow_executions
             FOR EACH ROW EXECUTE FUNCTION refuse()"
    );
    let mut database = schema.connect().await;
    database.batch_execute(&refuse).await.unwrap();
}

#[tokio::test]
async fn a_statement_that_times_out_does_not_keep_other_namespaces_from_being_pruned() {
    let app = App::start().await;
    let [slow, other] = [app.tenant(), app.tenant()];
    for tenant in [&slow, &other] {
        leave_rows(tenant).await;
        age(&app.schema, &tenant.namespace).await;
    }
    // PostgreSQL's own error after the 60 s that a statement may take.
    let timeout = "canceling statement due to statement timeout";
    fail_deletes(&app.schema, &slow.namespace, timeout).await;
    let mut replica = App::start_on(app.schema.clone(), prunes).await;
    replica.expect_errors();
    eventually("the other namespace is pruned", async || {
        (rows(&app.schema, &other.namespace).await == AGELESS).then_some(())
    })
    .await;
    assert_eq!(rows(&app.schema, &slow.namespace).await[0], 2);
    let table = [("table", "workflow_executions")];
    let figures = replica.figures();
    assert!(figures.sum("bridgebook_retention_failures_total", &table) > 0.0);
}

#[tokio::test]
async fn a_namespace_that_fails_does_not_keep_others_from_being_pruned() {
    let app = App::start().await;
    // Namespaces are pruned in the order of their names, which is that of their creation.
    let [failing, other] = [app.tenant(), app.tenant()];
    for tenant in [&failing, &other] {
        leave_rows(tenant).await;
        age(&app.schema, &tenant.namespace).await;
    }
    refuse_deletes(&app.schema, &failing.namespace).await;
    let mut replica = App::start_on(app.schema.clone(), prunes).await;
    replica.expect_errors();
    eventually("the other namespace is pruned", async || {
        (rows(&app.schema, &other.namespace).await == AGELESS).then_some(())
    })
    .await;
    assert_eq!(rows(&app.schema, &failing.namespace).await[0], 2);
    let table = [("table", "workflow_executions")];
    let failures = replica
        .figures()
        .sum("bridgebook_retention_failures_total", &table);
    assert!(failures > 0.0);
    let mut database = app.schema.connect().await;
    let allow = "DROP TRIGGER refuses ON workflow_executions";
    database.batch_execute(allow).await.unwrap();
    eventually("a later pass prunes the namespace", async || {
        (rows(&app.schema, &failing.namespace).await == AGELESS).then_some(())
    })
    .await;
}

/// The pruner counts the time of a statement after the rest that follows it. So the sum never
/// exceeds a fifth of the time that has passed, however fast or slow the machine is.
#[tokio::test]
async fn pruning_takes_at_most_a_fifth_of_the_time() {
    let app = App::start().await;
    for _ in 0..40 {
        leave_workflows(&app.schema, &app.tenant().namespace, 2, 2, 0).await;
    }
    let begun = Instant::now();
    let replica = App::start_on(app.schema.clone(), prunes).await;
    eventually("all workflows are gone", async || {
        let left = "SELECT count(*) FROM workflow_executions";
        (app.schema.count(left).await == 0).then_some(())
    })
    .await;
    let busy = replica
        .figures()
        .sum("bridgebook_retention_busy_seconds_total", &[]);
    let passed = begun.elapsed().as_secs_f64();
    assert!(busy > 0.0);
    assert!(busy * 5.0 <= passed, "{busy} s of {passed} s");
}

/// Removes expired workflows by the command, which must fail. Returns its output and its log.
pub fn prune_that_fails(schema: &Schema) -> (String, String) {
    let url = schema.url();
    let output = bridgebook()
        .args(["prune", "--database-url", &url, "--retain-workflows=10"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let [removed, log] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    // A command is no call.
    assert!(!log.contains("request id"), "{log}");
    (removed, log)
}

#[tokio::test]
async fn the_prune_command_goes_on_after_a_namespace_that_fails() {
    let app = App::start().await;
    let [failing, other] = [app.tenant(), app.tenant()];
    for tenant in [&failing, &other] {
        leave_workflows(&app.schema, &tenant.namespace, 1, 1, 0).await;
    }
    refuse_deletes(&app.schema, &failing.namespace).await;
    let (_, log) = prune_that_fails(&app.schema);
    assert!(log.contains(&failing.namespace), "{log}");
    assert!(log.contains("it is refused"), "{log}");
    assert_eq!(rows(&app.schema, &other.namespace).await[0], 0);
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
    assert!(prune(&[]).contains("no stored rows have a retention"));
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
