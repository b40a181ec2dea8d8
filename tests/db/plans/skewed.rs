//! The plans while one tenant has most rows of every table, and one workflow, entity or bridge
//! most of their children. The plans for another tenant must be those of a small database.

use std::collections::BTreeSet;

use bridgebook::{
    db::{
        migrations,
        planner::{BATCH_SETTINGS, QUERY_SETTINGS, statements},
    },
    proto::Rpc,
};
use serde_json::Value;
use tokio_postgres::Client;

use super::{ANALYZE, connect, fault, scans, select};
use crate::{
    samples::{Rows, call, sample},
    support::{App, Schema, database_address},
};

/// The rows of the tenant "big", and a few of "small".
const SKEWED: &str = "
    INSERT INTO workflow_executions (id, correlation_id, workflow_type, current_state, namespace)
    SELECT gen_random_uuid(), gen_random_uuid(), 'etl', 'PENDING',
           CASE WHEN number <= 20 THEN 'small' ELSE 'big' END
      FROM generate_series(1, 3000) AS number;
    INSERT INTO workflow_steps (id, namespace, workflow_id, step_name, step_order, status, step_data)
    SELECT gen_random_uuid(), namespace, id, 'step', number, 'COMPLETED', '{}'
      FROM (SELECT * FROM workflow_executions WHERE namespace = 'big' LIMIT 1) w,
           generate_series(1, 20000) AS number;
    INSERT INTO metadata_stamps (id, namespace, workflow_id, file_hash, stamp_data)
    SELECT gen_random_uuid(), namespace, workflow_id, 'hash', '{}' FROM workflow_steps;
    INSERT INTO fsm_transitions (id, entity_id, entity_type, to_state, transition_event, namespace)
    SELECT gen_random_uuid(), workflow_id, 'valve', 'OPEN', 'turn', namespace FROM workflow_steps;
    INSERT INTO fsm_entities (namespace, entity_type, entity_id, current_state, revision, state_since, created_at)
    SELECT namespace, 'valve', id, 'OPEN', 1, now(), now() FROM workflow_executions;
    INSERT INTO fsm_machines (namespace, entity_type, version, definition, definition_digest)
    SELECT 'big', 'valve', number, '{}', '' FROM generate_series(1, 3000) AS number;
    INSERT INTO fsm_entity_types (namespace, entity_type)
    SELECT 'big', 'type-' || number FROM generate_series(1, 3000) AS number;
    INSERT INTO bridge_states (bridge_id, namespace, current_fsm_state, revision)
    SELECT id, namespace, 'ACTIVE', 1 FROM workflow_executions;
    INSERT INTO bridge_batches (namespace, bridge_id, batch_id, workflows_processed, items_aggregated, request_digest)
    SELECT namespace, workflow_id, id, 1, 1, '' FROM workflow_steps;
    INSERT INTO node_registrations (node_id, owner, node_type, node_version, health_status, heartbeat_ttl_ms)
    SELECT 'node-' || id, namespace, 'reducer', '1', 'HEALTHY', 30000 FROM workflow_executions";

/// Tables that a statement may read as a whole, and why.
const SMALL: [(&str, &str); 5] = [
    ("api_tokens", "operators make them"),
    ("retention_policies", "operators make them"),
    ("quotas", "operators make them"),
    ("__diesel_schema_migrations", "a release adds a few"),
    (
        "node_registrations",
        "all tenants share the registry, and may list all nodes of all owners",
    ),
];

/// Returns the texts of the statements that Diesel builds: lists, and changes of single rows.
async fn built_statements() -> BTreeSet<String> {
    let (app, tap) = App::tapped().await;
    let tenant = app.tenant();
    let mark = tap.mark();
    let rows = Rows::make(&app, &tenant.namespace, None).await;
    for rpc in Rpc::ALL.iter().copied() {
        let sample = sample(rpc);
        for bits in sample.each_variant() {
            // A call that is refused has run its statements, too.
            let request = rows.fill(&sample.request(bits));
            drop(call(&app, rpc, None, &request).await);
        }
    }
    let registered: BTreeSet<String> = statements().map(|it| (it.sql)()).collect();
    let mut built = tap.texts_since(mark);
    // The drivers prepare settings of the session, too.
    let words = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "];
    let has_plan = |sql: &str| words.iter().any(|word| sql.trim_start().starts_with(word));
    built.retain(|sql| !registered.contains(sql) && has_plan(sql));
    built
}

/// Returns a value of a type, as the tenant "small" would send it.
fn value(kind: &str, id: &str) -> String {
    let element = kind.trim_end_matches("[]");
    let value = match element {
        "uuid" => id,
        "text" | "character varying" => "small",
        "bigint" | "integer" | "smallint" | "double precision" => "500",
        "boolean" => "true",
        "interval" => "1 hour",
        "timestamp with time zone" => "2026-01-01",
        "jsonb" => r#"{"a": 1}"#,
        "bytea" => "",
        other => panic!("the type {other} is new"),
    };
    match element.len() < kind.len() {
        true if element == "jsonb" => "NULL".to_owned(),
        true => format!("'{{\"{value}\"}}'"),
        false => format!("'{value}'"),
    }
}

/// Returns the plan of a statement for values of the tenant "small".
async fn explain(client: &Client, sql: &str, types: &[String], id: &str) -> Value {
    let types = match types {
        [] => String::new(),
        types => format!("({})", types.join(", ")),
    };
    let prepare = format!("DEALLOCATE ALL; PREPARE it {types} AS {sql}");
    let prepared = client.batch_execute(&prepare).await;
    prepared.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
    let types = "SELECT array_to_string(parameter_types, ',') FROM pg_prepared_statements
                  WHERE name = 'it'";
    let types = select(client, types).await;
    let types = types.split(',').filter(|it| !it.is_empty());
    let values: Vec<String> = types.map(|kind| value(kind, id)).collect();
    let execute = match values.as_slice() {
        [] => "EXECUTE it".to_owned(),
        values => format!("EXECUTE it ({})", values.join(", ")),
    };
    let plan = select(client, &format!("EXPLAIN (FORMAT JSON) {execute}")).await;
    let mut plan: Value = serde_json::from_str(&plan).unwrap();
    plan[0]["Plan"].take()
}

/// Returns what is wrong with a scan of a query: it must begin at a key, a parent or a tenant. An
/// index that begins with a time leads over the rows of all tenants.
async fn walk(client: &Client, name: &str, scan: &Value) -> Option<String> {
    let index = scan["Index Name"].as_str()?;
    if index.starts_with("pg_") {
        return None;
    }
    let condition = scan["Index Cond"].as_str()?;
    let leading = format!("SELECT pg_get_indexdef('{index}'::regclass, 1, true)");
    let leading = select(client, &leading).await;
    let is_bound = condition.contains(&leading) && !leading.ends_with("_at");
    (!is_bound).then(|| format!("{name}: walks over {index} by {condition}"))
}

/// Explains every statement on skewed data, first without statistics, then with them.
#[tokio::test]
async fn no_plan_depends_on_what_another_tenant_stores() {
    let built = built_statements().await;
    assert!(
        built.len() > 20,
        "only {} statements were built",
        built.len()
    );
    let schema = Schema::empty().await;
    migrations::up(&database_address(&schema.url()))
        .await
        .unwrap();
    let [batches, queries] = [connect(&schema).await, connect(&schema).await];
    batches.batch_execute(BATCH_SETTINGS).await.unwrap();
    queries.batch_execute(QUERY_SETTINGS).await.unwrap();
    queries.batch_execute(SKEWED).await.unwrap();
    let id = "SELECT id::text FROM workflow_executions WHERE namespace = 'small' LIMIT 1";
    let id = select(&queries, id).await;
    let mut faults = BTreeSet::new();
    for statistics in ["", ANALYZE] {
        queries.batch_execute(statistics).await.unwrap();
        for statement in statements() {
            let client = if statement.is_batch {
                &batches
            } else {
                &queries
            };
            let types = statement.binds.iter().map(|bind| super::sql_type(bind));
            let types: Vec<String> = types.collect();
            let plan = explain(client, &(statement.sql)(), &types, &id).await;
            for scan in scans(&plan) {
                faults.extend(fault(&queries, statement.name, statement.is_batch, scan).await);
            }
        }
        for sql in &built {
            let plan = explain(&queries, sql, &[], &id).await;
            for scan in scans(&plan) {
                let table = scan["Relation Name"].as_str().unwrap_or_default();
                if SMALL.iter().all(|(small, _)| *small != table) {
                    faults.extend(fault(&queries, sql, false, scan).await);
                    faults.extend(walk(&queries, sql, scan).await);
                }
            }
        }
    }
    let faults: Vec<String> = faults.into_iter().collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
