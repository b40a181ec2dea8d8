//! Filling a database.

use std::{ffi::OsStr, fmt::Write, time::Instant};

use crate::{
    Result,
    cluster::Cluster,
    copy::{DIGEST, Filler, NULL, row},
    service,
    world::{FileHash, Kind, LARGE, MACHINES, NODES, NodeId, ORDER, World, mixed, share},
};

/// Makes a database and everything in it.
pub async fn fill(cluster: &Cluster, database: &str, world: &World) -> Result<()> {
    let begun = Instant::now();
    cluster.create(database).await?;
    let url = cluster.url(database);
    service::migrate(&["--database-url".as_ref(), OsStr::new(&url)]).await?;
    let filler = Filler::connect(&url).await?;
    let indexes = filler.drop_indexes().await?;
    fill_workflows(&filler, world).await?;
    fill_steps(&filler, world).await?;
    fill_stamps(&filler, world).await?;
    fill_journal(&filler, world).await?;
    fill_entities(&filler, world).await?;
    fill_bridges(&filler, world).await?;
    fill_machines(&filler).await?;
    fill_nodes(&filler, world).await?;
    eprintln!("{database}: rows after {} s", begun.elapsed().as_secs());
    for index in indexes {
        filler.execute(&index).await?;
    }
    filler.execute("VACUUM ANALYZE").await?;
    filler.execute("CHECKPOINT").await?;
    eprintln!("{database}: filled after {} s", begun.elapsed().as_secs());
    Ok(())
}

async fn fill_workflows(filler: &Filler, world: &World) -> Result<()> {
    let into = "workflow_executions (id, correlation_id, workflow_type, current_state, namespace, \
                started_at, completed_at, execution_time_ms, error_message, metadata, created_at, \
                updated_at, request_digest)";
    filler
        .fill(into, 0..world.workflows, |out, number| {
            let state = state(world, number);
            let began = world.time(number);
            let has_ended = !matches!(state, "PENDING" | "PROCESSING");
            let took = i64::try_from(mixed(number) % 60_000).unwrap_or(0);
            let ended = began + chrono::TimeDelta::milliseconds(took);
            let or_null = |text: String| match has_ended {
                true => text,
                false => NULL.to_owned(),
            };
            row!(
                out,
                world.id(Kind::Workflow, number, 0),
                world.id(Kind::Correlation, number, 0),
                workflow_type(number),
                state,
                world.namespace(number),
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

/// Most workflows are done. What is not is new, as it is in life.
fn state(world: &World, number: u64) -> &'static str {
    /// Of the newest so many in a hundred, half are not done yet.
    const UNDER_WAY: u64 = 5;
    let is_new = number >= world.workflows / 100 * (100 - UNDER_WAY);
    match is_new && mixed(!number).is_multiple_of(2) {
        true => share(number, &[(40, "PENDING")], "PROCESSING"),
        false => share(number, &[(6, "FAILED"), (4, "CANCELLED")], "COMPLETED"),
    }
}

fn workflow_type(number: u64) -> &'static str {
    // Not the number that the state is taken from, or the two would go together.
    share(mixed(number), &[(10, "import"), (30, "stamp")], "ingest")
}

/// Forty workflows in a row are a batch, twenty of them [`LARGE`]'s.
fn metadata(number: u64) -> String {
    let team = share(number, &[(25, "red"), (25, "blue")], "green");
    let batch = number / 40;
    format!(r#"{{"team": "{team}", "batch": {batch}, "dry_run": false}}"#)
}

async fn fill_steps(filler: &Filler, world: &World) -> Result<()> {
    /// How many steps a workflow has.
    const STEPS: u64 = 5;
    let into = "workflow_steps (id, workflow_id, step_name, step_order, status, execution_time_ms, \
                step_data, error_message, created_at, namespace, request_digest)";
    filler
        .fill(into, 0..world.workflows, |out, number| {
            let workflow = world.id(Kind::Workflow, number, 0);
            (0..STEPS).try_for_each(|place| {
                row!(
                    out,
                    world.id(Kind::Step, number, place),
                    workflow,
                    "validate_metadata",
                    place,
                    share(
                        number ^ place << 40,
                        &[(3, "FAILED"), (2, "SKIPPED")],
                        "COMPLETED"
                    ),
                    mixed(number) % 9_000,
                    r#"{"tool": "stamper", "files": "one"}"#,
                    NULL,
                    world.time(number),
                    world.namespace(number),
                    DIGEST,
                )
            })
        })
        .await
}

/// One stamp for each workflow, twenty for each file.
async fn fill_stamps(filler: &Filler, world: &World) -> Result<()> {
    let into = "metadata_stamps (id, workflow_id, file_hash, stamp_data, namespace, created_at, \
                request_digest)";
    filler
        .fill(into, 0..world.workflows, |out, number| {
            row!(
                out,
                world.id(Kind::Stamp, number, 0),
                world.id(Kind::Workflow, number, 0),
                FileHash(number % world.files()),
                r#"{"codec": "flac", "channels": 2}"#,
                world.namespace(number),
                world.time(number),
                DIGEST,
            )
        })
        .await
}

/// The moves of an entity, over the thirty days.
const MOVES: [(&str, &str, &str); 4] = [
    (NULL, "PLACED", "start"),
    ("PLACED", "PAID", "pay"),
    ("PAID", "PACKED", "pack"),
    ("PACKED", "SHIPPED", "ship"),
];

/// The start of each workflow, and between them the moves of the entities.
async fn fill_journal(filler: &Filler, world: &World) -> Result<()> {
    let into = "fsm_transitions (id, entity_id, entity_type, from_state, to_state, \
                transition_event, transition_data, created_at, namespace, request_digest)";
    filler
        .fill(into, 0..world.workflows, |out, number| {
            let time = world.time(number);
            row!(
                out,
                world.id(Kind::Start, number, 0),
                world.id(Kind::Workflow, number, 0),
                "workflow",
                NULL,
                "PENDING",
                "start",
                "{}",
                time,
                world.namespace(number),
                DIGEST,
            )?;
            let entity = number % world.entities();
            let turn = number / world.entities();
            let Some((from, to, event)) = MOVES.get(turn as usize) else {
                return Ok(());
            };
            row!(
                out,
                world.id(Kind::Move, number, 0),
                world.id(Kind::Entity, entity, 0),
                entity_type(entity),
                from,
                if turn == 3 { last_state(entity) } else { to },
                if turn == 3 { last_event(entity) } else { event },
                r#"{"by": "clerk"}"#,
                time,
                world.namespace(entity),
                DIGEST,
            )
        })
        .await
}

/// The type of an entity.
pub fn entity_type(entity: u64) -> &'static str {
    share(entity, &[(10, "parcel")], ORDER)
}

fn last_state(entity: u64) -> &'static str {
    share(!entity, &[(10, "RETURNED")], "SHIPPED")
}

fn last_event(entity: u64) -> &'static str {
    share(!entity, &[(10, "return")], "ship")
}

async fn fill_entities(filler: &Filler, world: &World) -> Result<()> {
    let into = "fsm_entities (namespace, entity_type, entity_id, current_state, revision, \
                state_since, created_at)";
    filler
        .fill(into, 0..world.entities(), |out, entity| {
            row!(
                out,
                world.namespace(entity),
                entity_type(entity),
                world.id(Kind::Entity, entity, 0),
                last_state(entity),
                MOVES.len(),
                world.time(entity + 3 * world.entities()),
                world.time(entity),
            )
        })
        .await
}

async fn fill_bridges(filler: &Filler, world: &World) -> Result<()> {
    let into = "bridge_states (bridge_id, namespace, total_workflows_processed, \
                total_items_aggregated, aggregation_metadata, current_fsm_state, \
                last_aggregation_timestamp, created_at, updated_at, revision, request_digest)";
    filler
        .fill(into, 0..world.bridges(), |out, bridge| {
            let time = world.time(bridge * 40);
            row!(
                out,
                world.id(Kind::Bridge, bridge, 0),
                world.namespace(bridge),
                bridge % 1_000,
                bridge % 100_000,
                // Forty bridges in a row are in one rack, twenty of them LARGE's.
                format!(r#"{{"rack": {}, "zone": "a"}}"#, bridge / 40),
                share(bridge, &[(40, "IDLE")], "AGGREGATING"),
                time,
                time,
                time,
                3,
                DIGEST,
            )
        })
        .await
}

/// A few machines in two versions each, the one of [`ORDER`] among them.
async fn fill_machines(filler: &Filler) -> Result<()> {
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
    filler
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

/// Nodes with a TTL of a day, so that none of them falls silent in the meantime,
/// but for one in ten that has not been heard of for two.
async fn fill_nodes(filler: &Filler, world: &World) -> Result<()> {
    const DAY_MS: u64 = 86_400_000;
    let into = "node_registrations (node_id, node_type, node_version, capabilities, endpoints, \
                metadata, health_status, last_heartbeat, registered_at, created_at, updated_at, owner, \
                heartbeat_ttl_ms)";
    filler
        .fill(into, 0..NODES, |out, number| {
            let now = world.time(world.workflows);
            let silent = chrono::TimeDelta::hours(if number % 10 == 9 { 48 } else { 0 });
            let heard =
                now - silent - chrono::TimeDelta::milliseconds((number * 7 % 60_000) as i64);
            row!(
                out,
                NodeId(number),
                share(number, &[(10, "orchestrator"), (20, "registry")], "reducer"),
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
                heard,
                now - chrono::TimeDelta::days(3),
                now - chrono::TimeDelta::days(3),
                heard,
                world.namespace(number),
                DAY_MS,
            )
        })
        .await
}
