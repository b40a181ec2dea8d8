use bridgebook::proto::v1::{ListMigrationsRequest, SchemaMigration};
use chrono::{DateTime, Utc};
use diesel_async::SimpleAsyncConnection;

use super::client;
use crate::support::App;

async fn migrations(app: &App) -> Vec<SchemaMigration> {
    let answer = client(app).list_migrations(ListMigrationsRequest {}).await;
    answer.unwrap().into_inner().migrations
}

#[tokio::test]
async fn every_migration_is_listed_with_description_and_time() {
    let before = Utc::now();
    let app = App::start().await;
    let all = migrations(&app).await;
    assert!(all.is_sorted_by(|a, b| a.version < b.version));
    let first = &all[0];
    assert_eq!(first.version, "001");
    assert_eq!(first.description, "Create workflow executions");
    let applied = first.applied_at.unwrap();
    let applied = DateTime::from_timestamp(applied.seconds, 0).unwrap();
    // Both times come from the same clock.
    assert!(
        (applied - before).num_minutes().abs() < 10,
        "{applied} {before}"
    );
}

#[tokio::test]
async fn a_pending_migration_has_no_time() {
    let app = App::start().await;
    let forget = "DELETE FROM __diesel_schema_migrations WHERE version = '006'";
    app.schema
        .connect()
        .await
        .batch_execute(forget)
        .await
        .unwrap();
    let all = migrations(&app).await;
    let pending: Vec<_> = all.iter().filter(|row| row.applied_at.is_none()).collect();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].version, "006");
}
