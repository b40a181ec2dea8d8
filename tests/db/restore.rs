//! Restores of a dump into another cluster, whose transaction ids start anew.

use std::{fs::File, path::PathBuf, process::Command};

use bridgebook::embedded::Embedded;
use diesel_async::SimpleAsyncConnection;

use crate::support::{App, Server, connect_database, count, own_cluster, temp_dir, tenant_on};

/// Rows of the journal that a reader up to the oldest transaction in progress does not see.
const BEYOND_HORIZON: &str =
    "SELECT count(*) FROM fsm_transitions WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())";

/// Pairs of rows whose order by position is not that of `seq`.
const OUT_OF_ORDER: &str = "SELECT count(*)
    FROM (SELECT seq, lead(seq) OVER (ORDER BY xid, seq) AS next FROM fsm_transitions) pair
   WHERE next < seq";

/// The number of rows of the dumped journal.
const ROWS: i64 = 5;

/// Repaired rows.
const REPAIRED: &str = "SELECT count(*) FROM fsm_transitions WHERE xid = '0'";

/// A role with the rights that the service needs, in a restored database.
const GRANT: &str =
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO service;
    GRANT SELECT, USAGE ON ALL SEQUENCES IN SCHEMA public TO service";

/// Hides the identifier of the cluster, as some hosted PostgreSQL may.
const HIDE_IDENTIFIER: &str = "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC";

/// Returns a command of PostgreSQL's that connects to a database of a cluster.
fn tool(cluster: &Embedded, name: &str, database: &str) -> Command {
    let mut command = Command::new(cluster.bin_dir().join(name));
    command
        .arg("-h")
        .arg(cluster.socket_dir())
        .args(["-p", &cluster.port().to_string()])
        .args(["-U", cluster.user(), database])
        .env_remove("PGOPTIONS");
    command
}

/// Returns the URL of a database for a role.
fn url(cluster: &Embedded, role: &str, database: &str) -> String {
    let url = cluster.database_url();
    let to_user = format!("postgres://{}@", cluster.user());
    let rest = url.strip_prefix(&to_user).expect("the URL names the user");
    let (host, _) = rest.rsplit_once('/').expect("the URL names the database");
    format!("postgres://{role}@{host}/{database}")
}

/// Dumps a database in which the service wrote at high transaction ids.
async fn dump_of_another_cluster(into: PathBuf) {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let use_ids = "DO $$ BEGIN
        FOR number IN 1..5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$";
    let mut database = connect_database(&cluster.database_url()).await;
    database.batch_execute(use_ids).await.unwrap();
    let mut server = Server::spawn(&["--database-url", &cluster.database_url(), "--migrate"]);
    let tenant = tenant_on(server.serving().await);
    for _ in 0..ROWS {
        tenant.start_processing().await;
    }
    assert!(server.terminate().success());
    let mut dump = tool(&cluster, "pg_dump", cluster.database());
    let status = dump.stdout(File::create(into).unwrap()).status();
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_journal_lies_below_the_horizon_when_the_service_serves() {
    let (dump, dir) = (temp_dir(), temp_dir());
    std::fs::create_dir_all(&dump.0).unwrap();
    let dump = dump.0.join("dump.sql");
    dump_of_another_cluster(dump.clone()).await;
    let cluster = own_cluster(&dir).await;
    let mut admin = connect_database(&cluster.database_url()).await;
    admin
        .batch_execute("CREATE ROLE service LOGIN")
        .await
        .unwrap();
    for (database, prepare) in [("usual", ""), ("hidden", HIDE_IDENTIFIER)] {
        let create = format!("CREATE DATABASE {database}");
        admin.batch_execute(&create).await.unwrap();
        let mut restore = tool(&cluster, "psql", database);
        let restored = restore.stdin(File::open(&dump).unwrap()).output().unwrap();
        assert!(restored.status.success(), "{restored:?}");
        let mut rows = connect_database(&url(&cluster, cluster.user(), database)).await;
        rows.batch_execute(&format!("{GRANT}; {prepare}"))
            .await
            .unwrap();
        assert_eq!(count(&mut rows, BEYOND_HORIZON).await, ROWS);

        let url = url(&cluster, "service", database);
        // Several replicas start at once. One of them repairs the journal.
        let replicas = [0, 1].map(|_| Server::spawn(&["--database-url", &url]));
        for replica in &replicas {
            let tenant = tenant_on(replica.serving().await);
            assert_eq!(count(&mut rows, BEYOND_HORIZON).await, 0);
            tenant.start().await;
        }
        let logs = replicas.each_ref().map(Server::log).concat();
        assert_eq!(logs.matches("positions of the journal repaired").count(), 1);
        assert_eq!(count(&mut rows, REPAIRED).await, ROWS);
        assert_eq!(count(&mut rows, OUT_OF_ORDER).await, 0);
        // A later start changes nothing.
        Server::spawn(&["--database-url", &url]).serving().await;
        assert_eq!(count(&mut rows, REPAIRED).await, ROWS);
    }
}

#[tokio::test]
async fn an_interrupted_repair_of_a_large_journal_continues_at_the_next_start() {
    let (app, tenant) = App::with_tenant().await;
    tenant.start().await;
    // More than a statement repairs. Half of the rows are done.
    let large = "INSERT INTO fsm_transitions
                     (id, entity_id, entity_type, to_state, transition_event, namespace, xid)
                 SELECT gen_random_uuid(), gen_random_uuid(), 'valve', 'OPEN', 'turn', 'x',
                        (number % 2 * 9000000000)::text::xid8
                   FROM generate_series(1, 100000) AS number;
                 UPDATE journal_cluster SET is_adopted = false";
    app.schema
        .connect()
        .await
        .batch_execute(large)
        .await
        .unwrap();
    app.replica().await;
    assert_eq!(app.schema.count(REPAIRED).await, 100_001);
    let adopted = "SELECT count(*) FROM journal_cluster WHERE is_adopted";
    assert_eq!(app.schema.count(adopted).await, 1);
}

/// A dump of a journal whose repair was interrupted is restored into a third cluster, which has
/// assigned the ids of its rows already.
#[tokio::test]
async fn an_interrupted_repair_continues_in_yet_another_cluster() {
    let (app, tenant) = App::with_tenant().await;
    tenant.start().await;
    assert_eq!(app.schema.count(REPAIRED).await, 0);
    let interrupted = "UPDATE journal_cluster SET system_identifier = 1, is_adopted = false";
    app.schema
        .connect()
        .await
        .batch_execute(interrupted)
        .await
        .unwrap();
    app.replica().await;
    assert_eq!(app.schema.count(REPAIRED).await, 1);
}

/// As after pg_upgrade, which keeps transaction ids but not the identifier.
#[tokio::test]
async fn positions_that_are_valid_in_another_cluster_stay() {
    let (app, tenant) = App::with_tenant().await;
    tenant.start().await;
    let other = "UPDATE journal_cluster SET system_identifier = 1";
    app.schema
        .connect()
        .await
        .batch_execute(other)
        .await
        .unwrap();
    app.replica().await;
    assert_eq!(app.schema.count(REPAIRED).await, 0);
    let adopted = "SELECT count(*) FROM journal_cluster, pg_control_system() AS cluster
                    WHERE is_adopted
                      AND journal_cluster.system_identifier = cluster.system_identifier";
    assert_eq!(app.schema.count(adopted).await, 1);
}
