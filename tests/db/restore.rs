//! Restores of a dump into another cluster, whose transaction ids start anew.

use std::{fs::File, path::Path, process::Command};

use bridgebook::{db::migrations, embedded::Embedded};
use diesel_async::SimpleAsyncConnection;

use crate::{
    fsm,
    support::{
        App, Schema, Server, connect_database, count, database_address, own_cluster, temp_dir,
        tenant_on, use_transaction_ids,
    },
};

/// Rows of the journal that a reader up to the oldest transaction in progress does not see, however few
/// are in progress.
const BEYOND_HORIZON: &str = "SELECT count(*) FROM fsm_transitions, journal_cluster
     WHERE xid::text::bigint >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint + xid_offset";

/// Pairs of rows whose order by position is not that of `seq`.
const OUT_OF_ORDER: &str = "SELECT count(*)
    FROM (SELECT seq, lead(seq) OVER (ORDER BY xid, seq) AS next FROM fsm_transitions) pair
   WHERE next < seq";

/// A digest of the positions of the oldest rows.
const POSITIONS: &str = "SELECT hashtextextended(string_agg(it::text, ' ' ORDER BY seq), 0)
       FROM (SELECT xid, seq, id FROM fsm_transitions ORDER BY seq LIMIT ROWS) it";

const HIGHEST: &str = "SELECT max(xid::text::bigint) FROM fsm_transitions";

const OFFSET: &str = "SELECT xid_offset FROM journal_cluster WHERE is_adopted";

/// The number of rows of the dumped journal.
const ROWS: i64 = 5;

/// Hides the identifier of the cluster, as some hosted PostgreSQL may.
const HIDE_IDENTIFIER: &str = "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC";

/// A role that creates tables in a new database.
const OWNER: &str = "service";

/// Returns a command of PostgreSQL's that connects to a database of a cluster.
fn tool(cluster: &Embedded, name: &str, role: &str, database: &str) -> Command {
    let mut command = Command::new(cluster.bin_dir().join(name));
    command
        .arg("-h")
        .arg(cluster.socket_dir())
        .args(["-p", &cluster.port().to_string()])
        .args(["-U", role, database])
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

/// Dumps a database in the custom format.
fn dump(cluster: &Embedded, database: &str, into: &Path) {
    let mut dump = tool(cluster, "pg_dump", cluster.user(), database);
    dump.args(["-Fc", "--no-owner"]);
    let status = dump.stdout(File::create(into).unwrap()).status();
    assert!(status.unwrap().success());
}

/// Restores a dump into a new database of [`OWNER`].
async fn restore(cluster: &Embedded, database: &str, prepare: &str, dump: &Path) {
    let mut admin = connect_database(&cluster.database_url()).await;
    let create = format!("CREATE DATABASE {database} OWNER {OWNER}");
    admin.batch_execute(&create).await.unwrap();
    let mut admin = connect_database(&url(cluster, cluster.user(), database)).await;
    let prepare = format!("GRANT CREATE ON SCHEMA public TO {OWNER}; {prepare}");
    admin.batch_execute(&prepare).await.unwrap();
    // pg_restore reads the dump from its standard input.
    let mut restore = Command::new(cluster.bin_dir().join("pg_restore"));
    let restored = restore
        .args(["--no-owner", "--single-transaction"])
        .args(["-d", &url(cluster, OWNER, database)])
        .stdin(File::open(dump).unwrap())
        .env_remove("PGOPTIONS")
        .output()
        .unwrap();
    assert!(restored.status.success(), "{restored:?}");
}

/// Creates a cluster with the role [`OWNER`].
async fn cluster(dir: &crate::support::TempDir) -> Embedded {
    let cluster = own_cluster(dir).await;
    let role = format!("CREATE ROLE {OWNER} LOGIN");
    let mut admin = connect_database(&cluster.database_url()).await;
    admin.batch_execute(&role).await.unwrap();
    cluster
}

/// Serves a database until a few rows are written.
async fn write(url: &str) {
    let mut server = Server::spawn(&["--database-url", url, "--migrate"]);
    let tenant = tenant_on(server.serving().await);
    for _ in 0..ROWS {
        tenant.start_processing().await;
    }
    assert!(server.terminate().success());
}

fn positions(rows: i64) -> String {
    POSITIONS.replace("ROWS", &rows.to_string())
}

/// The second restore is one of a journal that has been restored before.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_journal_keeps_its_positions_and_new_rows_follow() {
    let dirs = [temp_dir(), temp_dir(), temp_dir()];
    let dumps = temp_dir();
    std::fs::create_dir_all(&dumps.0).unwrap();
    let path = dumps.0.join("dump");
    {
        let first = own_cluster(&dirs[0]).await;
        use_transaction_ids(&first.database_url()).await;
        write(&first.database_url()).await;
        dump(&first, first.database(), &path);
    }
    let mut rows = ROWS;
    for (dir, is_last) in [(&dirs[1], false), (&dirs[2], true)] {
        let cluster = cluster(dir).await;
        for (name, prepare) in [("usual", ""), ("hidden", HIDE_IDENTIFIER)] {
            restore(&cluster, name, prepare, &path).await;
            let url = url(&cluster, OWNER, name);
            let mut database = connect_database(&url).await;
            assert!(count(&mut database, BEYOND_HORIZON).await > 0);
            let before = count(&mut database, &positions(rows)).await;
            let highest = count(&mut database, HIGHEST).await;
            // Several replicas start at once. One of them adopts the journal.
            let replicas = [0, 1].map(|_| Server::spawn(&["--database-url", &url]));
            for replica in &replicas {
                let tenant = tenant_on(replica.serving().await);
                assert_eq!(count(&mut database, BEYOND_HORIZON).await, 0);
                tenant.start().await;
            }
            let logs = replicas.each_ref().map(Server::log).concat();
            assert_eq!(logs.matches("adopted the journal").count(), 1, "{logs}");
            let offset = count(&mut database, OFFSET).await;
            assert_eq!(offset, highest + 1);
            let new = format!("SELECT count(*) FROM fsm_transitions WHERE xid > '{offset}'");
            assert_eq!(count(&mut database, &new).await, 2);
            assert_eq!(count(&mut database, &positions(rows)).await, before);
            assert_eq!(count(&mut database, OUT_OF_ORDER).await, 0);
            // A later start changes nothing.
            write(&url).await;
            assert_eq!(count(&mut database, OFFSET).await, offset);
            assert_eq!(count(&mut database, &positions(rows)).await, before);
            assert_eq!(count(&mut database, OUT_OF_ORDER).await, 0);
        }
        if !is_last {
            use_transaction_ids(&cluster.database_url()).await;
            write(&url(&cluster, OWNER, "usual")).await;
            dump(&cluster, "usual", &path);
            rows += 2 + 2 * ROWS;
        }
    }
}

/// Makes the journal look like one of another cluster, which had assigned 9 billion ids.
const RESTORE: &str = "
    UPDATE fsm_transitions SET xid = (xid::text::bigint + 9000000000)::text::xid8;
    UPDATE journal_cluster SET system_identifier = 1";

async fn execute(schema: &Schema, sql: &str) {
    schema.connect().await.batch_execute(sql).await.unwrap();
}

/// Its prepared statements have the default of the column in their plans.
#[tokio::test]
async fn a_service_that_runs_while_a_journal_is_adopted_writes_with_the_offset() {
    let (app, tenant) = App::with_tenant().await;
    tenant.start().await;
    execute(&app.schema, RESTORE).await;
    let highest = app.schema.count(HIGHEST).await;
    app.replica().await;
    assert_eq!(app.schema.count(OFFSET).await, highest + 1);
    for _ in 0..20 {
        tenant.start().await;
    }
    let below = format!("SELECT count(*) FROM fsm_transitions WHERE xid <= '{highest}'");
    assert_eq!(app.schema.count(&below).await, 1);
    assert_eq!(app.schema.count(OUT_OF_ORDER).await, 0);
    assert_eq!(app.schema.count(BEYOND_HORIZON).await, 0);
    let positions = fsm::positions(&tenant, "workflow").await;
    assert_eq!(positions.len(), 21);
    assert!(positions.is_sorted(), "{positions:?}");
}

/// Earlier versions set the ids of all rows to 0, page by page.
#[tokio::test]
async fn an_interrupted_repair_of_an_earlier_version_ends_in_an_adoption() {
    let (app, tenant) = App::with_tenant().await;
    for _ in 0..10 {
        tenant.start().await;
    }
    let interrupted = format!(
        "{RESTORE}; UPDATE fsm_transitions SET xid = '0' WHERE seq % 2 = 0;
         UPDATE journal_cluster SET is_adopted = false"
    );
    execute(&app.schema, &interrupted).await;
    let before = app.schema.count(&positions(10)).await;
    let highest = app.schema.count(HIGHEST).await;
    app.replica().await;
    assert_eq!(app.schema.count(OFFSET).await, highest + 1);
    assert_eq!(app.schema.count(&positions(10)).await, before);
    tenant.start().await;
    assert!(app.schema.count(HIGHEST).await > highest);
    assert_eq!(app.schema.count(BEYOND_HORIZON).await, 0);
}

/// As after pg_upgrade, which keeps transaction ids but not the identifier.
#[tokio::test]
async fn positions_that_are_valid_in_another_cluster_need_no_offset() {
    let (app, tenant) = App::with_tenant().await;
    tenant.start().await;
    let before = app.schema.count(&positions(1)).await;
    for is_adopted in [true, false] {
        let other =
            format!("UPDATE journal_cluster SET system_identifier = 1, is_adopted = {is_adopted}");
        execute(&app.schema, &other).await;
        app.replica().await;
        let adopted = "SELECT count(*) FROM journal_cluster, pg_control_system() AS cluster
                        WHERE is_adopted AND xid_offset = 0
                          AND journal_cluster.system_identifier = cluster.system_identifier";
        assert_eq!(app.schema.count(adopted).await, 1);
    }
    assert_eq!(app.schema.count(&positions(1)).await, before);
    tenant.start().await;
    assert_eq!(app.schema.count(OUT_OF_ORDER).await, 0);
}

/// A reader may have come as far as a row that retention has removed.
#[tokio::test]
async fn new_rows_follow_removed_ones_of_another_cluster() {
    let (app, tenant) = App::with_tenant().await;
    tenant.start().await;
    let remove = "
        INSERT INTO journal_floors (namespace, xid, seq, transition_id)
        SELECT namespace, '9000000000', seq, id FROM fsm_transitions;
        DELETE FROM fsm_transitions;
        UPDATE journal_cluster SET system_identifier = 1";
    execute(&app.schema, remove).await;
    app.replica().await;
    tenant.start().await;
    let after = "SELECT count(*) FROM fsm_transitions WHERE xid > '9000000000'";
    assert_eq!(app.schema.count(after).await, 1);
    assert_eq!(app.schema.count(OFFSET).await, 9_000_000_001);
}

/// The highest id is looked up namespace by namespace, in the byte order of their names.
#[tokio::test]
async fn the_highest_id_may_be_in_any_namespace() {
    let app = App::start().await;
    for namespace in ["a", "B", "b.c", "z-9", "é"] {
        let insert = format!(
            "INSERT INTO fsm_transitions
                 (id, entity_id, entity_type, to_state, transition_event, namespace, xid)
             SELECT gen_random_uuid(), gen_random_uuid(), 'valve', 'OPEN', 'turn', '{namespace}',
                    (max(xid::text::bigint) + 9000000000)::text::xid8
               FROM (SELECT xid FROM fsm_transitions UNION ALL SELECT '0') it;
             UPDATE journal_cluster SET system_identifier = 1"
        );
        execute(&app.schema, &insert).await;
        let highest = app.schema.count(HIGHEST).await;
        app.replica().await;
        assert_eq!(app.schema.count(OFFSET).await, highest + 1, "{namespace}");
    }
}

/// Migration 027 creates the column with the value 0.
#[tokio::test]
async fn an_offset_that_a_reverted_migration_drops_is_recorded_again() {
    let schema = Schema::empty().await;
    let address = database_address(&schema.url());
    migrations::up(&address).await.unwrap();
    let app = App::start_on(schema.clone(), |_| {}).await;
    let tenant = app.tenant();
    tenant.start().await;
    execute(&schema, RESTORE).await;
    app.replica().await;
    let offset = schema.count(OFFSET).await;
    assert!(offset > 9_000_000_000);
    drop(app);
    while migrations::down(&address).await.unwrap() != "027" {}
    migrations::up(&address).await.unwrap();
    assert_eq!(schema.count(OFFSET).await, 0);
    let app = App::start_on(schema.clone(), |_| {}).await;
    assert_eq!(schema.count(OFFSET).await, offset);
    let tenant = app.tenant();
    tenant.start().await;
    assert_eq!(schema.count(BEYOND_HORIZON).await, 0);
    assert_eq!(schema.count(OUT_OF_ORDER).await, 0);
}
