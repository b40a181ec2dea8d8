//! Fills a database with generated rows.

use std::{ffi::OsStr, fmt::Write, time::Instant};

use crate::{
    Result,
    cluster::Cluster,
    copy::{DIGEST, Loader, NULL, row},
    dataset::{
        Dataset, FileHash, Kind, LARGE, MACHINES, NODES, NodeId, ORDER, pick_weighted, splitmix64,
    },
    service,
};

/// Creates a database and all of its rows and indexes.
pub async fn fill(cluster: &Cluster, database: &str, dataset: &Dataset) -> Result<()> {
    let begun = Instant::now();
    cluster.create(database).await?;
    let url = cluster.url(database);
    service::migrate(&["--database-url".as_ref(), OsStr::new(&url)]).await?;
    let loader = Loader::connect(&url).await?;
    let indexes = loader.drop_indexes().await?;
    fill_workflows(&loader, dataset).await?;
    fill_steps(&loader, dataset).await?;
    fill_stamps(&loader, dataset).await?;
    fill_journal(&loader, dataset).await?;
    fill_entities(&loader, dataset).await?;
    fill_bridges(&loader, dataset).await?;
    fill_machines(&loader).await?;
    fill_nodes(&loader, dataset).await?;
    loader.execute(TOKENS_AND_POLICIES).await?;
    eprintln!(
        "{database}: loaded the rows after {} s",
        begun.elapsed().as_secs()
    );
    for index in indexes {
        loader.execute(&index).await?;
    }
    loader.execute("VACUUM ANALYZE").await?;
    loader.execute("CHECKPOINT").await?;
    eprintln!(
        "{database}: built the indexes after {} s",
        begun.elapsed().as_secs()
    );
    Ok(())
}

/// Inserts tokens, quotas and retention policies, the same number in every database. The policies
/// keep all rows, so that pruning does not change the database during the benchmark.
const TOKENS_AND_POLICIES: &str = "
    INSERT INTO api_tokens (id, name, role, namespaces, secret_sha256)
    SELECT gen_random_uuid(), 'token-' || number, 'WRITER', '{large}', sha256(number::text::bytea)
      FROM generate_series(1, 1000) AS number;
    INSERT INTO quotas (subject_kind, subject, weight)
    SELECT 'namespace', 'limited-' || number, 1 FROM generate_series(1, 1000) AS number;
    INSERT INTO retention_policies (namespace, table_name)
    SELECT 'tenant-' || number, 'fsm_transitions' FROM generate_series(1, 1000) AS number";

async fn fill_workflows(loader: &Loader, dataset: &Dataset) -> Result<()> {
    let into = "workflow_executions (id, correlation_id, workflow_type, current_state, namespace, \
                started_at, completed_at, execution_time_ms, error_message, metadata, created_at, \
                updated_at, request_digest)";
    loader
        .fill(into, 0..dataset.workflows, |out, number| {
            let state = state(dataset, number);
            let began = dataset.time(number);
            let has_ended = !matches!(state, "PENDING" | "PROCESSING");
            let took = i64::try_from(splitmix64(number) % 60_000).unwrap_or(0);
            let ended = began + chrono::TimeDelta::milliseconds(took);
            let or_null = |text: String| match has_ended {
                true => text,
                false => NULL.to_owned(),
            };
            row!(
                out,
                dataset.id(Kind::Workflow, number, 0),
                dataset.id(Kind::Correlation, number, 0),
                workflow_type(number),
                state,
                dataset.namespace(number),
                began,
                or_null(ended.to_string()),
                or_null(took.to_string()),
                if state == "FAILED" {
                    "no space left on device"
                } else {
                    NULL
                },
                metadata(number),
                began,
                if has_ended { ended } else { began },
                DIGEST,
            )
        })
        .await
}

/// Returns the state of a workflow. As in production, most have ended, and the others are new.
fn state(dataset: &Dataset, number: u64) -> &'static str {
    /// The percentage of newest workflows of which half are still in progress.
    const RECENT_PERCENT: u64 = 5;
    let is_new = number >= dataset.workflows / 100 * (100 - RECENT_PERCENT);
    match is_new && splitmix64(!number).is_multiple_of(2) {
        true => pick_weighted(number, &[(40, "PENDING")], "PROCESSING"),
        false => pick_weighted(number, &[(6, "FAILED"), (4, "CANCELLED")], "COMPLETED"),
    }
}

fn workflow_type(number: u64) -> &'static str {
    // Hashed again, because type and state would otherwise be correlated.
    pick_weighted(
        splitmix64(number),
        &[(10, "import"), (30, "stamp")],
        "ingest",
    )
}

/// Returns the metadata of a workflow. Forty workflows in a row are a batch, and twenty of them
/// belong to [`LARGE`].
fn metadata(number: u64) -> String {
    let team = pick_weighted(number, &[(25, "red"), (25, "blue")], "green");
    let batch = number / 40;
    format!(r#"{{"team": "{team}", "batch": {batch}, "dry_run": false}}"#)
}

async fn fill_steps(loader: &Loader, dataset: &Dataset) -> Result<()> {
    /// The number of steps per workflow.
    const STEPS: u64 = 5;
    let into = "workflow_steps (id, workflow_id, step_name, step_order, status, execution_time_ms, \
                step_data, error_message, created_at, namespace, request_digest)";
    loader
        .fill(into, 0..dataset.workflows, |out, number| {
            let workflow = dataset.id(Kind::Workflow, number, 0);
            (0..STEPS).try_for_each(|place| {
                row!(
                    out,
                    dataset.id(Kind::Step, number, place),
                    workflow,
                    "validate_metadata",
                    place,
                    pick_weighted(
                        number ^ place << 40,
                        &[(3, "FAILED"), (2, "SKIPPED")],
                        "COMPLETED"
                    ),
                    splitmix64(number) % 9_000,
                    r#"{"tool": "stamper", "files": "one"}"#,
                    NULL,
                    dataset.time(number),
                    dataset.namespace(number),
                    DIGEST,
                )
            })
        })
        .await
}

/// Loads one stamp per workflow, and thereby twenty per file.
async fn fill_stamps(loader: &Loader, dataset: &Dataset) -> Result<()> {
    let into = "metadata_stamps (id, workflow_id, file_hash, stamp_data, namespace, created_at, \
                request_digest)";
    loader
        .fill(into, 0..dataset.workflows, |out, number| {
            row!(
                out,
                dataset.id(Kind::Stamp, number, 0),
                dataset.id(Kind::Workflow, number, 0),
                FileHash(number % dataset.files()),
                r#"{"codec": "flac", "channels": 2}"#,
                dataset.namespace(number),
                dataset.time(number),
                DIGEST,
            )
        })
        .await
}

/// The moves of an entity, spread over the thirty days.
const MOVES: [(&str, &str, &str); 4] = [
    (NULL, "PLACED", "start"),
    ("PLACED", "PAID", "pay"),
    ("PAID", "PACKED", "pack"),
    ("PACKED", "SHIPPED", "ship"),
];

/// Loads the journal: the start of each workflow, interleaved with the moves of the entities.
async fn fill_journal(loader: &Loader, dataset: &Dataset) -> Result<()> {
    let into = "fsm_transitions (id, entity_id, entity_type, from_state, to_state, \
                transition_event, transition_data, created_at, namespace, request_digest)";
    loader
        .fill(into, 0..dataset.workflows, |out, number| {
            let time = dataset.time(number);
            row!(
                out,
                dataset.id(Kind::Start, number, 0),
                dataset.id(Kind::Workflow, number, 0),
                "workflow",
                NULL,
                "PENDING",
                "start",
                "{}",
                time,
                dataset.namespace(number),
                DIGEST,
            )?;
            let entity = number % dataset.entities();
            let turn = number / dataset.entities();
            let Some((from, to, event)) = MOVES.get(turn as usize) else {
                return Ok(());
            };
            row!(
                out,
                dataset.id(Kind::Move, number, 0),
                dataset.id(Kind::Entity, entity, 0),
                entity_type(entity),
                from,
                if turn == 3 { last_state(entity) } else { to },
                if turn == 3 { last_event(entity) } else { event },
                r#"{"by": "clerk"}"#,
                time,
                dataset.namespace(entity),
                DIGEST,
            )
        })
        .await
}

/// Returns the type of an entity.
pub fn entity_type(entity: u64) -> &'static str {
    pick_weighted(entity, &[(10, "parcel")], ORDER)
}

fn last_state(entity: u64) -> &'static str {
    pick_weighted(!entity, &[(10, "RETURNED")], "SHIPPED")
}

fn last_event(entity: u64) -> &'static str {
    pick_weighted(!entity, &[(10, "return")], "ship")
}

async fn fill_entities(loader: &Loader, dataset: &Dataset) -> Result<()> {
    let into = "fsm_entities (namespace, entity_type, entity_id, current_state, revision, \
                state_since, created_at)";
    loader
        .fill(into, 0..dataset.entities(), |out, entity| {
            row!(
                out,
                dataset.namespace(entity),
                entity_type(entity),
                dataset.id(Kind::Entity, entity, 0),
                last_state(entity),
                MOVES.len(),
                dataset.time(entity + 3 * dataset.entities()),
                dataset.time(entity),
            )
        })
        .await
}

async fn fill_bridges(loader: &Loader, dataset: &Dataset) -> Result<()> {
    let into = "bridge_states (bridge_id, namespace, total_workflows_processed, \
                total_items_aggregated, aggregation_metadata, current_fsm_state, \
                last_aggregation_timestamp, created_at, updated_at, revision, request_digest)";
    loader
        .fill(into, 0..dataset.bridges(), |out, bridge| {
            let time = dataset.time(bridge * 40);
            row!(
                out,
                dataset.id(Kind::Bridge, bridge, 0),
                dataset.namespace(bridge),
                bridge % 1_000,
                bridge % 100_000,
                // Forty bridges in a row share a rack, and twenty of them belong to LARGE.
                format!(r#"{{"rack": {}, "zone": "a"}}"#, bridge / 40),
                pick_weighted(bridge, &[(40, "IDLE")], "AGGREGATING"),
                time,
                time,
                time,
                3,
                DIGEST,
            )
        })
        .await
}

/// Loads machines in two versions each, including that of [`ORDER`].
async fn fill_machines(loader: &Loader) -> Result<()> {
    let into = "fsm_machines (namespace, entity_type, version, definition, definition_digest)";
    let moves = [
        ("PLACED", "pay", "PAID"),
        ("PAID", "pack", "PACKED"),
        ("PACKED", "ship", "SHIPPED"),
        ("PACKED", "return", "RETURNED"),
    ];
    let moves = moves.map(|(from, event, to)| {
        format!(r#"{{"from_state": "{from}", "transition_event": "{event}", "to_state": "{to}"}}"#)
    });
    let definition = format!(
        r#"{{"initial_state": "PLACED", "terminal_states": ["SHIPPED", "RETURNED"], "moves": [{}]}}"#,
        moves.join(", ")
    );
    loader
        .fill(into, 0..MACHINES, |out, number| {
            let name = match number {
                0 => ORDER.to_owned(),
                1 => "parcel".to_owned(),
                number => format!("type-{number:02}"),
            };
            (1..=2).try_for_each(|version| row!(out, LARGE, name, version, definition, DIGEST))
        })
        .await
}

/// Loads nodes with a TTL of one day, so that none becomes stale during the benchmark. One in
/// ten is stale from the start: its last heartbeat is two days old.
async fn fill_nodes(loader: &Loader, dataset: &Dataset) -> Result<()> {
    const DAY_MS: u64 = 86_400_000;
    let into = "node_registrations (node_id, node_type, node_version, capabilities, endpoints, \
                metadata, health_status, last_heartbeat, registered_at, created_at, updated_at, owner, \
                heartbeat_ttl_ms)";
    loader
        .fill(into, 0..NODES, |out, number| {
            let now = dataset.time(dataset.workflows);
            let age = chrono::TimeDelta::hours(if number % 10 == 9 { 48 } else { 0 });
            let last_heartbeat =
                now - age - chrono::TimeDelta::milliseconds((number * 7 % 60_000) as i64);
            row!(
                out,
                NodeId(number),
                pick_weighted(number, &[(10, "orchestrator"), (20, "registry")], "reducer"),
                "1.4.2",
                format!(
                    r#"{{"gpu": {}, "slots": {}}}"#,
                    number % 8 == 0,
                    number % 16
                ),
                format!(
                    r#"{{"grpc": "10.0.{}.{}:7000"}}"#,
                    number / 250,
                    number % 250
                ),
                "{}",
                match number % 10 {
                    9 => "UNHEALTHY",
                    8 => "DEGRADED",
                    _ => "HEALTHY",
                },
                last_heartbeat,
                now - chrono::TimeDelta::days(3),
                now - chrono::TimeDelta::days(3),
                last_heartbeat,
                dataset.namespace(number),
                DAY_MS,
            )
        })
        .await
}
