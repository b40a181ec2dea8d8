//! Query plans: which indexes statements use, and how many entries they read.
//! `db::planner` explains what the statements do for these plans.

mod skewed;

use std::{collections::BTreeSet, fs};

use bridgebook::{
    db::{
        migrations,
        planner::{BATCH_SETTINGS, QUERY_SETTINGS, Statement, statements},
    },
    proto::v1::ListTransitionsRequest,
};
use serde_json::Value;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::{
    fsm,
    house::{rust_files, without_unit_tests},
    samples::{Rows, sample},
    support::{App, Schema, contract, database_address, new_id, raw_call},
};

/// Statements that read a whole table or index, and why they may.
const FULL_SCANS: &[(&str, &str)] = &[
    ("NODES", "counts all nodes, for operators"),
    (
        "OFFSET_NEEDED",
        "reads an entry for each namespace, once after a restore",
    ),
    ("SUMMARIES", "counts all rows, for operators"),
    ("SelectSamples", "counts all nodes, every 15 s"),
    ("CONSUMER_LAGS", "reads the first entry of an index"),
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
    ("SelectTokens", "tokens are few"),
    ("WRITE_LAST_USES", "tokens are few"),
    (
        "CountStrandedEntities",
        "counts the entities of a type, for an error",
    ),
    ("IsBridgeStranded", "a namespace has few bridges"),
    ("CountStrandedBridges", "a namespace has few bridges"),
    ("STATES", "reads for the registry all nodes"),
    (
        "ReadPrefix",
        "reads journal_floors, a row for each namespace",
    ),
    (
        "ListNamespaces",
        "reads one entry of an index for each namespace, and journal_floors",
    ),
    (
        "SELECT_STALE",
        "each node has its own TTL, so it reads all nodes that are not UNHEALTHY",
    ),
];

/// Settings for generic plans that read a whole table only if no index serves them.
const ANY_INDEX: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off";

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
    SELECT 'node-' || id, namespace, 'reducer', '1', 'HEALTHY', 30000 FROM workflow_executions";

/// Gathers the statistics of the schema. A bare ANALYZE would also read the tables of other tests, and
/// change their plans.
const ANALYZE: &str = "DO $$ DECLARE it REGCLASS; BEGIN
         FOR it IN SELECT oid FROM pg_class
                    WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' LOOP
             EXECUTE format('ANALYZE %s', it);
         END LOOP;
     END $$";

/// Explains every statement, first on empty tables without statistics, then with rows. With
/// sequential scans disabled, the planner uses one only if no index serves the statement.
#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index() {
    let schema = Schema::empty().await;
    migrations::up(&database_address(&schema.url()))
        .await
        .unwrap();
    let batches = connect(&schema).await;
    batches.batch_execute(BATCH_SETTINGS).await.unwrap();
    let queries = connect(&schema).await;
    queries.batch_execute(ANY_INDEX).await.unwrap();
    let mut all: Vec<&Statement> = statements().collect();
    all.sort_by_key(|statement| (statement.module, statement.name));
    assert!(all.len() > 40, "only {} statements are listed", all.len());
    let mut faults = Vec::new();
    for (rows, analyze) in [("", ""), (ROWS, ANALYZE)] {
        queries.batch_execute(rows).await.unwrap();
        queries.batch_execute(analyze).await.unwrap();
        for statement in &all {
            let client = if statement.is_batch {
                &batches
            } else {
                &queries
            };
            let plan = explain_statement(client, statement).await;
            for scan in scans(&plan) {
                faults.extend(fault(&queries, statement.name, statement.is_batch, scan).await);
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

pub(super) async fn explain_statement(client: &Client, statement: &Statement) -> Value {
    let types: Vec<_> = statement.binds.iter().map(|bind| sql_type(bind)).collect();
    let nulls = vec!["NULL".to_owned(); types.len()];
    explain(client, "FORMAT JSON", &types, &nulls, &(statement.sql)()).await
}

/// Returns the plan of a statement. PostgreSQL infers the types of parameters without one.
async fn explain(
    client: &Client,
    options: &str,
    types: &[String],
    values: &[String],
    sql: &str,
) -> Value {
    let list = |items: &[String]| match items {
        [] => String::new(),
        items => format!("({})", items.join(", ")),
    };
    let prepare = format!("DEALLOCATE ALL; PREPARE it {} AS {sql}", list(types));
    let prepared = client.batch_execute(&prepare).await;
    prepared.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
    let explain = format!("EXPLAIN ({options}) EXECUTE it {}", list(values));
    let mut plan: Value = serde_json::from_str(&select(client, &explain).await).unwrap();
    plan[0]["Plan"].take()
}

/// Returns the value that a query selects.
async fn select(client: &Client, query: &str) -> String {
    let rows = client.simple_query(query).await;
    let rows = rows.unwrap_or_else(|error| panic!("{error:?}\n{query}"));
    let value = rows.iter().find_map(|row| match row {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    value.unwrap().to_owned()
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

/// Returns the nodes of a plan that read a table or an index.
fn scans(plan: &Value) -> Vec<&Value> {
    let is_scan = plan["Node Type"].as_str().unwrap().ends_with("Scan");
    let children = plan["Plans"].as_array().into_iter().flatten();
    let own = is_scan.then_some(plan);
    own.into_iter().chain(children.flat_map(scans)).collect()
}

/// Returns what is wrong with a scan. A batch looks rows up by an index that begins with a
/// column of their key. The namespace alone is no key, because a tenant may have many rows.
async fn fault(client: &Client, name: &str, is_batch: bool, scan: &Value) -> Option<String> {
    if FULL_SCANS.iter().any(|(allowed, _)| *allowed == name) {
        return None;
    }
    let condition = scan["Index Cond"].as_str().unwrap_or_default();
    if scan["Node Type"] == "Seq Scan" {
        let table = scan["Relation Name"].as_str()?;
        // It has one row, by a constraint.
        let is_small = table == "journal_cluster" || table.starts_with("pg_");
        return (!is_small).then(|| format!("{name}: reads all of {table}"));
    }
    let index = scan["Index Name"]
        .as_str()
        .filter(|it| !it.starts_with("pg_"))?;
    if condition.is_empty() {
        return Some(format!("{name}: reads all of {index}"));
    }
    let leading = format!("SELECT pg_get_indexdef('{index}'::regclass, 1, true)");
    let leading = select(client, &leading).await;
    let is_namespace_alone = leading == "namespace" && !condition.contains(" AND ");
    // One row for each namespace.
    let is_key = index == "journal_floors_pkey" || !is_namespace_alone;
    let has_key = condition.contains(&leading) && is_key;
    (is_batch && !has_key).then(|| format!("{name}: uses {index} by {condition}"))
}

/// Explains the queries of lists, which Diesel builds from the filters of a request.
#[tokio::test]
async fn every_list_finds_its_rows_by_an_index() {
    let (app, tap) = App::tapped().await;
    let tenant = app.tenant();
    let rows = Rows::unmade(&tenant.namespace);
    let mut lists = BTreeSet::new();
    for rpc in contract::tenant_rpcs().filter(|rpc| contract::has_field(*rpc, "page_token")) {
        let sample = sample(rpc);
        for bits in sample.each_variant() {
            let mark = tap.mark();
            let request = contract::encode(rpc, &rows.fill(&sample.request(bits)));
            drop(raw_call(&tenant.channel, contract::method(rpc), request).await);
            lists.extend(tap.since(mark).into_iter().map(|ran| ran.sql));
        }
    }
    assert!(lists.len() > 9, "only {} queries ran", lists.len());
    let schema = Schema::empty().await;
    migrations::up(&database_address(&schema.url()))
        .await
        .unwrap();
    let client = connect(&schema).await;
    client.batch_execute(ANY_INDEX).await.unwrap();
    client.batch_execute(ROWS).await.unwrap();
    client.batch_execute(ANALYZE).await.unwrap();
    let mut faults = Vec::new();
    for sql in &lists {
        let parameters = (1..).take_while(|number| sql.contains(&format!("${number}")));
        let nulls = vec!["NULL".to_owned(); parameters.count()];
        let plan = explain(&client, "FORMAT JSON", &[], &nulls, sql).await;
        for scan in scans(&plan) {
            faults.extend(fault(&client, sql, false, scan).await);
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A subquery with a lock could run once for each row of the table, and so take more rows than
/// its limit. A common table expression runs once.
#[tokio::test]
async fn a_statement_of_the_pruner_selects_its_rows_once() {
    let schema = Schema::empty().await;
    migrations::up(&database_address(&schema.url()))
        .await
        .unwrap();
    let client = connect(&schema).await;
    client.batch_execute(ANY_INDEX).await.unwrap();
    let mut prunes = statements().filter(|it| it.name.starts_with("PruneRows"));
    for _ in 0..5 {
        let statement = prunes.next().unwrap();
        let plan = explain_statement(&client, statement).await;
        assert_eq!(locks(&plan, false), [true], "{}: {plan:#}", statement.name);
    }
    assert!(prunes.next().is_none());
}

/// Returns for each node that locks rows whether it is within a common table expression.
fn locks(plan: &Value, within: bool) -> Vec<bool> {
    let is_cte = |name: &str| name.starts_with("CTE ");
    let within = within || plan["Subplan Name"].as_str().is_some_and(is_cte);
    let own = (plan["Node Type"] == "LockRows").then_some(within);
    let children = plan["Plans"].as_array().into_iter().flatten();
    let below = children.flat_map(|child| locks(child, within));
    own.into_iter().chain(below).collect()
}

/// Calls of `sql_query` and `sql` without a registered statement, and why they may.
const UNREGISTERED: [(&str, &str); 11] = [
    ("select_targets(self.0)", "is registered for each table"),
    ("expired.prune()", "is registered for each table"),
    ("expired.count()", "is registered for each table"),
    ("self.select()", "is registered for each table"),
    ("table", "looks up the table of migrations"),
    (
        "counts",
        "counts all rows, for commands that copy a database",
    ),
    ("versions", "reads the versions of migrations"),
    ("LAST_ACTIVITY", "is an expression of a list"),
    ("IS_ALIVE", "is a condition of a list"),
    ("\"now() - \"", "is an expression of a list"),
    (
        "\"coalesce(revoked_at, now())\"",
        "is an expression of an update",
    ),
];

#[test]
fn bare_sql_is_a_registered_statement() {
    let registered: BTreeSet<&str> = statements().map(|statement| statement.name).collect();
    for (name, _) in FULL_SCANS {
        assert!(registered.contains(name), "{name} is not registered");
    }
    let mut unregistered = BTreeSet::new();
    for file in rust_files("src") {
        let text = fs::read_to_string(file).unwrap();
        let found = bare_sql(without_unit_tests(&text)).map(ToOwned::to_owned);
        unregistered.extend(found.filter(|it| !registered.contains(it.as_str())));
    }
    let known = UNREGISTERED.map(|(argument, _)| argument.to_owned());
    assert_eq!(unregistered, BTreeSet::from(known));
}

/// Returns the arguments of the calls of `sql_query` and `sql` in a source text.
fn bare_sql(text: &str) -> impl Iterator<Item = &str> {
    let queries = text.split("sql_query(").skip(1);
    let fragments = text.match_indices("sql::<");
    let fragments = fragments.filter(|(index, _)| !text[..*index].ends_with('_'));
    let fragments = fragments.map(|(index, _)| text[index..].split_once(">(").unwrap().1);
    queries.chain(fragments).map(|rest| {
        let mut depth = 1;
        let end = rest.find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        rest[..end.unwrap()].trim()
    })
}

/// Most entities have few transitions, so a generic plan would read all of an entity's.
#[tokio::test]
async fn a_page_of_an_entity_with_many_transitions_reads_only_its_rows() {
    // The planner breaks ties between indexes by their creation order, so the service
    // migrates the schema itself, as in production.
    let (app, tap) = App::tapped_on(Schema::empty().await).await;
    let tenant = app.tenant();
    let entity_id = new_id();
    let namespace = &tenant.namespace;
    let client = connect(&app.schema).await;
    let moves = format!(
        "INSERT INTO fsm_transitions (id, entity_id, entity_type, to_state, transition_event, namespace)
         SELECT gen_random_uuid(), CASE WHEN number % 5 = 0 THEN '{entity_id}' ELSE gen_random_uuid() END,
                'valve', 'OPEN', 'turn', '{namespace}'
           FROM generate_series(1, 50000) AS number;
         ANALYZE fsm_transitions"
    );
    client.batch_execute(&moves).await.unwrap();
    client.batch_execute(QUERY_SETTINGS).await.unwrap();
    let of_entity = [
        format!("ARRAY['{namespace}']"),
        "'valve'".to_owned(),
        format!("'{entity_id}'"),
    ];
    let mut read = 0.0;
    let mut position = Vec::new();
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
        let mark = tap.mark();
        let answer = fsm::client(&tenant).list_transitions(request).await;
        let answer = answer.unwrap().into_inner();
        assert_eq!(answer.transitions.len(), 10);
        page_token = answer.next_page_token;
        let ran = tap.since(mark);
        assert_eq!(ran.len(), 1, "{ran:?}");
        let values = [&of_entity, position.as_slice(), &["11".to_owned()]].concat();
        let plan = explain(&client, "ANALYZE, FORMAT JSON", &[], &values, &ran[0].sql).await;
        read += scans(&plan).into_iter().map(rows_read).sum::<f64>();
        let last = &answer.transitions[9].id;
        let time = format!("SELECT created_at FROM fsm_transitions WHERE id = '{last}'");
        let time = select(&client, &time).await;
        position = vec![
            format!("'{time}'"),
            format!("'{last}'"),
            format!("'{namespace}'"),
        ];
    }
    assert!(read < 1000.0, "{read} rows were read for 120 rows");
}

/// Returns how many rows a node of an analyzed plan read.
fn rows_read(scan: &Value) -> f64 {
    let number = |name: &str| scan[name].as_f64().unwrap_or_default();
    let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    (number("Actual Rows") + removed) * number("Actual Loops")
}
