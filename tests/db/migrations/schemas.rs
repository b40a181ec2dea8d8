//! Migrations in a schema of its own, and migrations that are reverted in part.

use bridgebook::db::migrations;
use diesel_async::SimpleAsyncConnection;

use super::live::{BLOCK, Migration, RECORDED, VALID, counts};
use crate::support::{
    bridgebook, connect_database, count, database_address, eventually, own_cluster, temp_dir,
};

#[tokio::test]
async fn present_tables_are_not_hidden_by_new_ones() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let address = database_address(&url);
    migrations::up(&address).await.unwrap();
    migrations::down(&address).await.unwrap();
    // The default search_path begins with the schema of the role's name.
    let mut connection = connect_database(&url).await;
    let shadow = format!("CREATE SCHEMA {}", cluster.user());
    connection.batch_execute(&shadow).await.unwrap();
    let error = migrations::up(&address).await.unwrap_err().to_string();
    assert!(
        error.contains("the tables are in the schema \"public\""),
        "{error}"
    );
    let url = format!("{url}?options=-csearch_path%3Dpublic");
    let applied = migrations::up(&database_address(&url)).await.unwrap();
    assert_eq!(applied.len(), 1);
}

#[tokio::test]
async fn an_invalid_index_in_a_schema_of_any_name_is_built_again() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let mut admin = connect_database(&cluster.database_url()).await;
    admin
        .batch_execute("CREATE SCHEMA \"Bo.ok\"")
        .await
        .unwrap();
    let url = format!(
        "{}?options=-csearch_path%3D%22Bo.ok%22",
        cluster.database_url()
    );
    migrations::up(&database_address(&url)).await.unwrap();
    let invalid = "SET search_path TO \"Bo.ok\"; DELETE FROM __diesel_schema_migrations WHERE version = '023';
         UPDATE pg_index SET indisvalid = false
          WHERE indexrelid = to_regclass('idx_metadata_stamps_workflow_id_created_at')";
    admin.batch_execute(invalid).await.unwrap();
    assert_eq!(count(&mut admin, VALID).await, 0);
    let applied = migrations::up(&database_address(&url)).await.unwrap();
    assert_eq!(applied, ["023"]);
    assert_eq!(count(&mut admin, VALID).await, 1);
}

#[tokio::test]
async fn a_migration_that_is_reverted_in_part_is_pending() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let address = database_address(&url);
    migrations::up(&address).await.unwrap();
    while migrations::down(&address).await.unwrap() != "024" {}
    let mut blocker = connect_database(&url).await;
    blocker.batch_execute(BLOCK).await.unwrap();
    let mut command = bridgebook();
    command.args(["migrate", "down", "--database-url", &url]);
    let mut down = Migration::spawn_command(command);
    let waits = "SELECT count(*) FROM pg_stat_activity
         WHERE query LIKE 'DROP INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'";
    counts(&url, waits).await;
    assert_eq!(count(&mut blocker, RECORDED).await, 0);
    down.child.kill().unwrap();
    down.child.wait().unwrap();
    blocker.batch_execute("COMMIT").await.unwrap();
    // The statement of the killed process ends, or goes on until its index is gone.
    let drops = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DROP INDEX CONCURRENTLY%'";
    eventually("the session ends", async || {
        (count(&mut connect_database(&url).await, drops).await == 0).then_some(())
    })
    .await;
    let applied = migrations::up(&address).await.unwrap();
    assert_eq!(applied[..3], ["023", "024", "025"]);
    assert_eq!(count(&mut blocker, VALID).await, 1);
}
