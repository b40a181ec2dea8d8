use bridgebook::proto::v1::{GetIndexUsageRequest, IndexUsage};
use tonic::Status;

use super::client;
use crate::support::{App, Failure, eventually, failure};

async fn usage(app: &App, limit: i32) -> Result<Vec<IndexUsage>, Status> {
    let answer = client(app)
        .get_index_usage(GetIndexUsageRequest { limit })
        .await;
    answer.map(|answer| answer.into_inner().indexes)
}

#[tokio::test]
async fn every_index_is_listed_and_used_ones_come_first() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    tenant.get(&workflow).await;
    // PostgreSQL updates its statistics with a delay.
    let rows = eventually("the primary key was used", || async {
        let rows = usage(&app, 0).await.unwrap();
        let key = rows
            .iter()
            .find(|row| row.index_name == "workflow_executions_pkey")?;
        (key.times_used > 0).then_some(rows)
    })
    .await;
    assert!(rows.is_sorted_by(|a, b| a.times_used >= b.times_used));
    assert!(rows.iter().all(|row| row.schema_name == app.schema.name()));
    let unused = rows
        .iter()
        .find(|row| row.index_name == "idx_node_registrations_node_type");
    let unused = unused.unwrap();
    assert_eq!(
        (unused.table_name.as_str(), unused.times_used),
        ("node_registrations", 0)
    );
    assert!(unused.size_bytes > 0);
    let count = "SELECT count(*) FROM pg_indexes WHERE schemaname = current_schema()";
    assert_eq!(app.schema.count(count).await, rows.len() as i64);
    assert_eq!(usage(&app, 3).await.unwrap().len(), 3);
    assert_eq!(failure(usage(&app, -1).await), Failure::invalid(&["limit"]));
}
