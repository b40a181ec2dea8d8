//! Migrations: what they do to the schema, and how replicas take turns.

mod live;
mod plan;
mod schemas;

use std::process::{Command, Output};

use bridgebook::db::migrations;
use chrono::Utc;
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;

use crate::support::{
    Schema, Server, bridgebook, connect_database, count, database_address, eventually, own_cluster,
    temp_dir,
};

fn migrate(url: &str, action: &str) -> Output {
    let output = bridgebook()
        .args(["migrate", action, "--database-url", url])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn stdout(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}

/// Reverts and applies every migration one by one, and compares dumps. A difference shows
/// what a down.sql forgets, or removes too much of.
#[tokio::test]
async fn every_down_undoes_its_up() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let dump = || {
        let output = Command::new(cluster.bin_dir().join("pg_dump"))
            .args([
                "--schema-only",
                "--no-owner",
                "--restrict-key=x",
                "--dbname",
                &url,
            ])
            .output()
            .expect("pg_dump runs");
        assert!(output.status.success(), "{output:?}");
        stdout(output)
    };
    let all = migrations::status(&database_address(&url)).await.unwrap();
    migrations::up(&database_address(&url)).await.unwrap();
    let mut dumps = Vec::new();
    for _ in &all {
        dumps.push(dump());
        migrations::down(&database_address(&url)).await.unwrap();
    }
    let mut database = connect_database(&url).await;
    let left = count(
        &mut database,
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace
            AND relname NOT LIKE '\\_\\_diesel%'",
    );
    assert_eq!(left.await, 0, "all is undone");
    migrations::up(&database_address(&url)).await.unwrap();
    for (migration, expected) in all.iter().rev().zip(&dumps) {
        assert_eq!(&dump(), expected, "down and up to {}", migration.name);
        migrations::redo(&database_address(&url)).await.unwrap();
        assert_eq!(&dump(), expected, "redo of {}", migration.name);
        migrations::down(&database_address(&url)).await.unwrap();
    }
}

#[tokio::test]
async fn the_migrate_commands_apply_revert_and_list() {
    let schema = Schema::empty().await;
    let url = schema.url();
    let all = stdout(migrate(&url, "status"));
    assert!(all.lines().all(|line| line.starts_with("pending")));
    let count = all.lines().count();
    assert_eq!(stdout(migrate(&url, "up")).lines().count(), count);
    assert!(stdout(migrate(&url, "up")).contains("nothing to apply"));
    migrate(&url, "redo");
    assert!(
        stdout(migrate(&url, "status"))
            .lines()
            .all(|line| line.starts_with("applied"))
    );
    migrate(&url, "down");
    let last = stdout(migrate(&url, "status"));
    assert!(last.lines().last().unwrap().starts_with("pending"));
}

/// A statement that waits for a table blocks every later one.
#[tokio::test]
async fn a_migration_that_waits_for_a_lock_blocks_others_only_briefly() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    migrations::up(&database_address(&url)).await.unwrap();
    let mut reverted = 1;
    while migrations::down(&database_address(&url)).await.unwrap() != "021" {
        reverted += 1;
    }
    let [mut slow, mut other] = [connect_database(&url).await, connect_database(&url).await];
    // The lock of a writer that has not committed.
    let lock = "BEGIN; LOCK TABLE fsm_machines IN ROW EXCLUSIVE MODE";
    slow.batch_execute(lock).await.unwrap();
    let up = tokio::spawn(async move { migrations::up(&database_address(&url)).await });
    eventually("the migration waits", || async {
        let mut looking = connect_database(&cluster.database_url()).await;
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IS NOT NULL";
        (count(&mut looking, waiting).await > 0).then_some(())
    })
    .await;
    let write = "BEGIN; LOCK TABLE fsm_machines IN ROW EXCLUSIVE MODE; COMMIT";
    other.batch_execute(write).await.unwrap();
    assert!(!up.is_finished());
    slow.batch_execute("COMMIT").await.unwrap();
    assert_eq!(up.await.unwrap().unwrap().len(), reverted);
}

#[tokio::test]
async fn times_are_independent_of_the_session_time_zone() {
    let schema = Schema::empty().await;
    let before = Utc::now();
    migrations::up(&database_address(&schema.url()))
        .await
        .unwrap();
    let mut connection = schema.connect().await;
    let zone = "SET TIME ZONE 'Asia/Kolkata'";
    connection.batch_execute(zone).await.unwrap();
    for migration in migrations::status_on(&mut connection).await.unwrap() {
        let away = migration.applied_at.unwrap() - before;
        // Both use the same clock. The time zone differs by 330 minutes.
        assert!(away.num_minutes().abs() < 10, "{migration:?} {before}");
    }
}

#[tokio::test]
async fn a_migration_that_loses_its_connection_is_retried() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    // The service polls for this advisory lock of a migrating replica.
    let mut other = connect_database(&url).await;
    let lock = "SELECT pg_advisory_lock(7093848243014296171)";
    other.batch_execute(lock).await.unwrap();
    let server = Server::spawn(&["--database-url", &url, "--migrate"]);
    for _ in 0..2 {
        eventually("the waiting connection is terminated", || async {
            let mut admin = connect_database(&url).await;
            let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                              WHERE query LIKE 'SELECT pg_try_advisory_lock%'";
            (count(&mut admin, terminate).await > 0).then_some(())
        })
        .await;
    }
    let unlock = "SELECT pg_advisory_unlock_all()";
    other.batch_execute(unlock).await.unwrap();
    server.serving().await;
}

#[tokio::test]
async fn concurrent_migrations_do_not_collide() {
    let schema = Schema::empty().await;
    let url = schema.url();
    let address = database_address(&url);
    let results = join_all((0..8).map(|_| migrations::up(&address))).await;
    let applied: usize = results
        .into_iter()
        .map(|result| result.unwrap().len())
        .sum();
    assert_eq!(
        applied,
        migrations::status(&database_address(&url))
            .await
            .unwrap()
            .len()
    );
}

/// Compares the schema with the diagram: tables, keys, indexes, comments.
#[tokio::test]
async fn the_schema_matches_the_diagram() {
    let schema = Schema::empty().await;
    let url = schema.url();
    migrations::up(&database_address(&url)).await.unwrap();
    let here = format!("'{}'::regnamespace", schema.name());
    let foreign_keys = format!(
        "SELECT count(*) FROM pg_constraint WHERE connamespace = {here} AND contype = 'f' AND
         (conrelid::regclass::text, confdeltype) IN (('workflow_steps', 'c'), ('metadata_stamps', 'n'))"
    );
    assert_eq!(schema.count(&foreign_keys).await, 2);
    let uncommented = format!(
        "SELECT count(*) FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid
          WHERE t.relnamespace = {here} AND t.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
            AND t.relname NOT LIKE '\\_\\_diesel%'
            AND (col_description(t.oid, a.attnum) IS NULL OR obj_description(t.oid) IS NULL)"
    );
    assert_eq!(schema.count(&uncommented).await, 0);
    let unindexed_keys = format!(
        "SELECT count(*) FROM pg_constraint c WHERE connamespace = {here} AND contype = 'f' AND NOT EXISTS
         (SELECT FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1])"
    );
    assert_eq!(schema.count(&unindexed_keys).await, 0);
    for (table, columns) in DIAGRAM_INDEXES {
        let index = format!(
            "SELECT count(*) FROM pg_indexes WHERE schemaname = '{}' AND tablename = '{table}'
             AND indexdef LIKE '% USING btree ({columns})'",
            schema.name()
        );
        assert_eq!(schema.count(&index).await, 1, "{table} ({columns})");
    }
}

/// All 25 indexes of schema-diagram.md.
const DIAGRAM_INDEXES: [(&str, &str); 25] = [
    ("workflow_executions", "correlation_id"),
    ("workflow_executions", "namespace"),
    ("workflow_executions", "current_state"),
    ("workflow_executions", "started_at DESC"),
    ("workflow_steps", "workflow_id"),
    ("workflow_steps", "status"),
    ("workflow_steps", "created_at DESC"),
    ("workflow_steps", "workflow_id, step_order"),
    ("fsm_transitions", "entity_id, entity_type"),
    ("fsm_transitions", "entity_type"),
    ("fsm_transitions", "created_at DESC"),
    ("fsm_transitions", "from_state, to_state"),
    ("bridge_states", "namespace"),
    ("bridge_states", "current_fsm_state"),
    ("bridge_states", "last_aggregation_timestamp DESC"),
    ("bridge_states", "namespace, current_fsm_state"),
    ("node_registrations", "health_status"),
    ("node_registrations", "node_type"),
    ("node_registrations", "last_heartbeat DESC"),
    ("node_registrations", "node_type, health_status"),
    ("metadata_stamps", "workflow_id"),
    ("metadata_stamps", "file_hash"),
    ("metadata_stamps", "namespace"),
    ("metadata_stamps", "created_at DESC"),
    ("metadata_stamps", "namespace, created_at DESC"),
];
