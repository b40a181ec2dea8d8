//! Query plans: which indexes statements use, and how many entries they read.
//! `db::planner` explains what the statements do for these plans.

use bridgebook::{
    db::{
        migrations,
        planner::{BATCH_SETTINGS, Statement, statements},
    },
    proto::v1::{ListTransitionsRequest, StartWorkflowRequest, WorkflowState},
};
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;
use serde_json::Value;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::{
    bridge_state, fsm,
    support::{App, Schema, Tenant, eventually, new_id},
};

/// Statements that read a whole table or index, and why they may.
const FULL_SCANS: [(&str, &str); 9] = [
    ("NODES", "counts all nodes, for operators"),
    ("SUMMARIES", "counts all rows, for operators"),
    ("SelectSamples", "counts all nodes, every 15 s"),
    (
        "PruneTargets Workflows",
        "reads the first entry of an index",
    ),
    ("PruneTargets Batches", "reads the first entry of an index"),
    ("PruneTargets Stamps", "reads the first entry of an index"),
    (
        "PruneTargets Transitions",
        "reads the first entry of an index",
    ),
    (
        "PruneRows Batches",
        "joins an empty table with its own rows",
    ),
    (
        "SelectStale",
        "each node has its own TTL, so it reads heartbeats from the oldest on",
    ),
];

/// Rows of one tenant in every large table.
const ROWS: &str = "
    INSERT INTO workflow_executions (id, correlation_id, workflow_type, current_state, namespace)
    SELECT gen_random_uuid(), gen_random_uuid(), 'etl', 'PENDING', 'tenant'
      FROM generate_series(1, 2000);
    INSERT INTO workflow_steps (id, namespace, workflow_id, step_name, step_order, status, step_data)
    SELECT gen_random_uuid(), namespace, id, 'step', 1, 'COMPLETED', '{}' FROM workflow_executions;
    INSERT INTO metadata_stamps (id, namespace, workflow_id, file_hash, stamp_data)
    SELECT gen_random_uuid(), namespace, id, 'hash', '{}' FROM workflow_executions;
    INSERT INTO fsm_transitions (id, entity_id, entity_type, to_state, transition_event, namespace)
    SELECT gen_random_uuid(), id, 'valve', 'OPEN', 'turn', namespace FROM workflow_executions;
    INSERT INTO fsm_entities (namespace, entity_type, entity_id, current_state, revision, state_since, created_at)
    SELECT namespace, 'valve', id, 'OPEN', 1, now(), now() FROM workflow_executions;
    INSERT INTO bridge_states (bridge_id, namespace, current_fsm_state, revision)
    SELECT id, namespace, 'ACTIVE', 1 FROM workflow_executions;
    INSERT INTO bridge_batches (namespace, bridge_id, batch_id, workflows_processed, items_aggregated, request_digest)
    SELECT namespace, id, gen_random_uuid(), 1, 1, '' FROM workflow_executions;
    INSERT INTO node_registrations (node_id, owner, node_type, node_version, health_status, heartbeat_ttl_ms)
    SELECT 'node-' || id, namespace, 'reducer', '1', 'HEALTHY', 30000 FROM workflow_executions;
    ANALYZE";

/// Explains every statement, first on empty tables without statistics, then with rows. With
/// sequential scans disabled, the planner uses one only if no index serves the statement.
#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index() {
    let schema = Schema::empty().await;
    migrations::up(&schema.url()).await.unwrap();
    let batches = connect(&schema).await;
    batches.batch_execute(BATCH_SETTINGS).await.unwrap();
    let queries = connect(&schema).await;
    let settings = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off";
    queries.batch_execute(settings).await.unwrap();
    let mut all: Vec<&Statement> = statements().collect();
    all.sort_by_key(|statement| (statement.module, statement.name));
    assert!(all.len() > 40, "only {} statements are listed", all.len());
    let mut faults = Vec::new();
    for rows in ["", ROWS] {
        queries.batch_execute(rows).await.unwrap();
        for statement in &all {
            let client = if statement.is_batch {
                &batches
            } else {
                &queries
            };
            let plan = explain(client, statement).await;
            let mut scans = Vec::new();
            find_scans(&plan, &mut scans);
            for scan in scans {
                if let Some(fault) = fault(&queries, statement, scan).await {
                    faults.push(format!("{}::{}: {fault}", statement.module, statement.name));
                }
            }
        }
    }
    faults.dedup();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

async fn connect(schema: &Schema) -> Client {
    let connected = tokio_postgres::connect(&schema.url(), NoTls).await;
    let (client, connection) = connected.unwrap();
    tokio::spawn(connection);
    client
}

async fn explain(client: &Client, statement: &Statement) -> Value {
    let types: Vec<_> = statement.binds.iter().map(|bind| sql_type(bind)).collect();
    let (types, nulls) = match types.as_slice() {
        [] => (String::new(), String::new()),
        all => (
            format!("({})", all.join(", ")),
            format!("({})", vec!["NULL"; all.len()].join(", ")),
        ),
    };
    let name = statement.name;
    let sql = (statement.sql)();
    let prepare = format!("DEALLOCATE ALL; PREPARE it {types} AS {sql}");
    let prepared = client.batch_execute(&prepare).await;
    prepared.unwrap_or_else(|error| panic!("{name}: {error:?}\n{sql}"));
    let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE it {nulls}");
    let rows = client.simple_query(&explain).await.unwrap();
    let plan = rows.iter().find_map(|row| match row {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let mut plan: Value = serde_json::from_str(plan.unwrap()).unwrap();
    plan[0]["Plan"].take()
}

/// Returns the name in SQL of a type of Diesel's, such as `Array<Nullable<Text>>`.
fn sql_type(diesel: &str) -> String {
    let path = diesel.replace(' ', "").replace("diesel::sql_types::", "");
    let element = path.rsplit('<').next().unwrap().trim_end_matches('>');
    let element = match element {
        "BigInt" => "int8",
        "Bool" => "bool",
        "Double" => "float8",
        "Integer" => "int4",
        "Bytea" | "Interval" | "Jsonb" | "Text" | "Timestamptz" | "Uuid" => element,
        other => panic!("the type {other} is new"),
    };
    match path.starts_with("Array<") {
        true => format!("{element}[]"),
        false => element.to_owned(),
    }
}

/// Collects the nodes of a plan that read a table or an index.
fn find_scans<'a>(plan: &'a Value, scans: &mut Vec<&'a Value>) {
    if plan["Node Type"].as_str().unwrap().ends_with("Scan") {
        scans.push(plan);
    }
    for child in plan["Plans"].as_array().into_iter().flatten() {
        find_scans(child, scans);
    }
}

/// Returns what is wrong with a scan. A batch looks rows up by an index that begins with a
/// column of their key. The namespace alone is no key, because a tenant may have many rows.
async fn fault(client: &Client, statement: &Statement, scan: &Value) -> Option<String> {
    let may_scan = FULL_SCANS.iter().any(|(name, _)| *name == statement.name);
    let condition = scan["Index Cond"].as_str().unwrap_or_default();
    if scan["Node Type"] == "Seq Scan" {
        let table = scan["Relation Name"].as_str()?;
        let is_ours = !table.starts_with("pg_") && !may_scan;
        return is_ours.then(|| format!("reads all of {table}"));
    }
    let index = scan["Index Name"]
        .as_str()
        .filter(|it| !it.starts_with("pg_"))?;
    if condition.is_empty() {
        return (!may_scan).then(|| format!("reads all of {index}"));
    }
    let leading = format!("SELECT pg_get_indexdef('{index}'::regclass, 1, true)");
    let rows = client.simple_query(&leading).await.unwrap();
    let leading = rows.iter().find_map(|row| match row {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let leading = leading.unwrap();
    let has_key =
        condition.contains(leading) && (leading != "namespace" || condition.contains(" AND "));
    (statement.is_batch && !has_key).then(|| format!("uses {index} by {condition}"))
}

/// Starts the service on a schema that it migrates itself, as in production. The planner
/// breaks ties between indexes by their creation order, which a replayed schema lacks.
async fn migrated() -> (App, Tenant) {
    let app = App::start_on(Schema::empty().await, |_| {}).await;
    let tenant = app.tenant();
    (app, tenant)
}

#[tokio::test]
async fn plans_made_for_small_tables_still_use_the_indexes() {
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
    // Resets only these tables, because other tests read the statistics of theirs.
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

/// Without statistics, PostgreSQL rates an index that begins with the namespace as high as
/// the primary key.
#[tokio::test]
async fn batches_look_rows_up_by_key_in_tables_without_statistics() {
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

/// Most entities have few transitions, so a generic plan would read all of an entity's.
#[tokio::test]
async fn a_page_of_an_entity_with_many_transitions_reads_only_its_rows() {
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
