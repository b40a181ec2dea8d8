use bridgebook::proto::v1::{GetTableScansRequest, TableScans};
use tonic::Status;

use super::client;
use crate::support::{App, Failure, eventually, failure};

async fn scans(app: &App, limit: i32) -> Result<Vec<TableScans>, Status> {
    let answer = client(app)
        .get_table_scans(GetTableScansRequest { limit })
        .await;
    answer.map(|answer| answer.into_inner().tables)
}

#[tokio::test]
async fn sequential_scans_are_reported() {
    let (app, tenant) = App::with_tenant().await;
    for _ in 0..3 {
        tenant.start().await;
    }
    let all = "SELECT count(*) FROM workflow_executions WHERE workflow_type || '' = 'test'";
    assert_eq!(app.schema.count(all).await, 3);
    let rows = eventually("the scan was counted", || async {
        let rows = scans(&app, 1000).await.unwrap();
        let table = rows
            .iter()
            .find(|row| row.table_name == "workflow_executions")?;
        (table.sequential_tuples_read >= 3).then_some(rows)
    })
    .await;
    let table = rows
        .iter()
        .find(|row| row.table_name == "workflow_executions")
        .unwrap();
    assert!(table.sequential_scans > 0);
    assert_eq!(
        table.avg_sequential_tuples,
        table.sequential_tuples_read / table.sequential_scans
    );
    assert!(rows.is_sorted_by(|a, b| a.sequential_tuples_read >= b.sequential_tuples_read));
    assert!(rows.iter().all(|row| row.schema_name == app.schema.name()));
    assert_eq!(scans(&app, 2).await.unwrap().len(), 2);
    assert_eq!(
        failure(scans(&app, i32::MIN).await),
        Failure::invalid(&["limit"])
    );
}

/// Without scans, the average would be a division by 0.
#[tokio::test]
async fn a_table_that_was_never_scanned_has_an_average_of_0() {
    use diesel_async::SimpleAsyncConnection;
    let app = App::start().await;
    let mut connection = app.schema.connect().await;
    connection
        .batch_execute("CREATE TABLE untouched (id INT)")
        .await
        .unwrap();
    let untouched = eventually("the table is told of", || async {
        let rows = scans(&app, 1000).await.unwrap();
        rows.into_iter().find(|row| row.table_name == "untouched")
    })
    .await;
    assert_eq!(
        (untouched.sequential_scans, untouched.avg_sequential_tuples),
        (0, 0)
    );
}
