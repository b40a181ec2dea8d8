//! Work that takes longer than the timeouts of its role allow.

use std::time::Duration;

use bridgebook::db::{copy, journal_cluster};
use diesel_async::SimpleAsyncConnection;

use crate::support::{
    bridgebook, connect_database, count, database_address, own_cluster, stderr, temp_dir,
};

/// Runs `work` while a lock holds it up for longer than its role's statement_timeout.
async fn outlast_timeout<T: Send + 'static, E: std::error::Error + Send + 'static>(
    url: &str,
    lock: &str,
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> T {
    let lock = format!("BEGIN; LOCK TABLE {lock} MODE");
    let mut holder = connect_database(url).await;
    holder.batch_execute(&lock).await.unwrap();
    let mut observer = connect_database(url).await;
    let work = tokio::spawn(work);
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE wait_event_type = 'Lock'
                      AND clock_timestamp() - query_start > interval '1500 ms'";
    while count(&mut observer, waiting).await == 0 {
        assert!(!work.is_finished(), "{:?}", work.await.unwrap().err());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    holder.batch_execute("COMMIT").await.unwrap();
    work.await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeout_of_a_role_ends_no_copy() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let migrated = bridgebook()
        .args(["migrate", "up", "--database-url", &url])
        .output()
        .unwrap();
    assert!(migrated.status.success(), "{}", stderr(&migrated));
    let mut database = connect_database(&url).await;
    let timeout = format!(
        "ALTER DATABASE {} SET statement_timeout = '1s'",
        cluster.database()
    );
    database.batch_execute(&timeout).await.unwrap();

    let address = database_address(&url);
    let tables = copy::tables(&address).await.unwrap();
    let counts = outlast_timeout(&url, "workflow_steps IN ACCESS EXCLUSIVE", {
        let (address, tables) = (address.clone(), tables.clone());
        async move { copy::count_rows(&address, &tables).await }
    });
    assert_eq!(counts.await.len(), tables.len());
    outlast_timeout(&url, "workflow_steps IN SHARE UPDATE EXCLUSIVE", {
        let address = address.clone();
        async move { copy::finish(&address, &tables).await }
    })
    .await;
    let forget = "DELETE FROM journal_cluster";
    database.batch_execute(forget).await.unwrap();
    outlast_timeout(&url, "journal_cluster IN SHARE", async move {
        journal_cluster::adopt(&address).await
    })
    .await;
}
