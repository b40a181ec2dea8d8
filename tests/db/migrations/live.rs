//! Index builds while the service runs: interrupted, by several replicas, under load.

use std::{
    fs::{self, File},
    future::ready,
    process::{Child, Command},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use bridgebook::proto::v1::{ListStampsRequest, NewStamp, RecordStampRequest};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::future::join_all;
use tonic::Status;

use crate::support::{
    Server, TempDir, Tenant, bridgebook, connect_database, count, eventually, own_cluster,
    temp_dir, tenant_on,
};

/// Undoes migration 023, on which no other depends.
const FORGET: &str = "DELETE FROM __diesel_schema_migrations WHERE version = '023';
     DROP INDEX idx_metadata_stamps_workflow_id_created_at";

/// A writer that does not commit: the build waits for it.
pub(super) const BLOCK: &str = "BEGIN; LOCK TABLE metadata_stamps IN ROW EXCLUSIVE MODE";

/// Counts the builds that wait for it.
const WAITING: &str = "SELECT count(*) FROM pg_stat_progress_create_index
     WHERE phase = 'waiting for writers before build'";

/// Counts the index of migration 023, if it is valid.
pub(super) const VALID: &str = "SELECT count(*) FROM pg_index WHERE indisvalid
     AND indexrelid = to_regclass('idx_metadata_stamps_workflow_id_created_at')";

/// Counts the index of migration 023, if it is invalid.
const INVALID: &str = "SELECT count(*) FROM pg_index WHERE NOT indisvalid
     AND indexrelid = to_regclass('idx_metadata_stamps_workflow_id_created_at')";

pub(super) const RECORDED: &str =
    "SELECT count(*) FROM __diesel_schema_migrations WHERE version = '023'";

/// A process that applies migrations. It writes its output into a file.
pub(super) struct Migration {
    pub(super) child: Child,
    dir: TempDir,
}

impl Migration {
    fn spawn(url: &str) -> Self {
        let mut command = bridgebook();
        command.args(["migrate", "up", "--database-url", url]);
        Migration::spawn_command(command)
    }

    pub(super) fn spawn_command(mut command: Command) -> Self {
        let dir = temp_dir();
        fs::create_dir_all(&dir.0).unwrap();
        let output = File::create(dir.0.join("output")).unwrap();
        let child = command
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Migration { child, dir }
    }

    fn output(&self) -> String {
        fs::read_to_string(self.dir.0.join("output")).unwrap()
    }

    async fn writes(&self, text: &str) {
        eventually(text, async || self.output().contains(text).then_some(())).await;
    }

    /// Waits until it ends. Returns whether it succeeded.
    async fn ends(&mut self) -> bool {
        let status = eventually("it ends", || ready(self.child.try_wait().unwrap())).await;
        status.success()
    }
}

/// Waits until the database counts something.
pub(super) async fn counts(url: &str, condition: &str) {
    eventually(condition, async || {
        (count(&mut connect_database(url).await, condition).await > 0).then_some(())
    })
    .await;
}

/// Prepares a build that waits for the second connection.
async fn blocked_build(url: &str) -> [AsyncPgConnection; 2] {
    assert!(Migration::spawn(url).ends().await);
    let mut connection = connect_database(url).await;
    connection.batch_execute(FORGET).await.unwrap();
    let mut blocker = connect_database(url).await;
    blocker.batch_execute(BLOCK).await.unwrap();
    [connection, blocker]
}

#[tokio::test]
async fn an_interrupted_build_is_dropped_and_built_again() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let [mut connection, mut blocker] = blocked_build(&url).await;

    let mut cut = Migration::spawn(&url);
    counts(&url, WAITING).await;
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_progress_create_index";
    assert_eq!(count(&mut connection, terminate).await, 1);
    assert!(!cut.ends().await);
    let error = "the connection was lost during migration 023_add_stamp_order_index";
    assert!(cut.output().contains(error), "{}", cut.output());
    assert_eq!(count(&mut connection, INVALID).await, 1);
    assert_eq!(count(&mut connection, RECORDED).await, 0);

    // To drop the index waits for the writer, too.
    let mut again = Migration::spawn(&url);
    again
        .writes("dropping the invalid index of an interrupted build")
        .await;
    again.writes("dropping an index").await;
    blocker.batch_execute("COMMIT").await.unwrap();
    assert!(again.ends().await, "{}", again.output());
    assert_eq!(count(&mut connection, VALID).await, 1);
    assert_eq!(count(&mut connection, RECORDED).await, 1);
}

/// PostgreSQL does not notice that a client has been killed, and goes on building.
#[tokio::test]
async fn a_build_whose_process_is_killed_is_waited_for() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let [mut connection, mut blocker] = blocked_build(&url).await;

    let mut killed = Migration::spawn(&url);
    counts(&url, WAITING).await;
    killed.child.kill().unwrap();
    assert!(!killed.ends().await);
    let mut again = Migration::spawn(&url);
    again.writes("another process migrates").await;
    blocker.batch_execute("COMMIT").await.unwrap();
    assert!(again.ends().await, "{}", again.output());
    assert_eq!(count(&mut connection, VALID).await, 1);
    assert_eq!(count(&mut connection, RECORDED).await, 1);
}

/// A build waits for all older snapshots, also for those of replicas that wait for its end.
#[tokio::test]
async fn replicas_that_migrate_at_once_do_not_wait_for_each_other() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let [mut connection, mut blocker] = blocked_build(&url).await;

    let service = Server::spawn(&["--database-url", &url, "--migrate"]);
    counts(&url, WAITING).await;
    let mut others = [Migration::spawn(&url), Migration::spawn(&url)];
    for other in &others {
        other.writes("another process migrates").await;
    }
    // Where there is no terminal, the log has the progress.
    let blocker_pid = count(&mut blocker, "pg_backend_pid()").await;
    let line = eventually("the progress is logged", async || {
        let log = service.log();
        let mut lines = log.lines();
        let line = lines.find(|line| line.contains("building an index"));
        line.map(ToOwned::to_owned)
    })
    .await;
    for field in [
        "idx_metadata_stamps_workflow_id_created_at",
        "waiting for writers before build",
        "idle in transaction",
        &format!("waits_for_pid={blocker_pid}"),
    ] {
        assert!(line.contains(field), "{field}: {line}");
    }
    blocker.batch_execute("COMMIT").await.unwrap();
    service.serving().await;
    for other in &mut others {
        assert!(other.ends().await, "{}", other.output());
    }
    assert_eq!(count(&mut connection, VALID).await, 1);
}

/// The ANALYZE waits for the lock of the build, and the end of the build for the snapshot of ANALYZE.
#[tokio::test]
async fn a_build_that_deadlocks_with_analyze_is_repeated() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let [mut connection, mut blocker] = blocked_build(&url).await;

    let mut migration = Migration::spawn(&url);
    counts(&url, WAITING).await;
    // The session that looks for a deadlock first ends itself.
    let patient = "SET deadlock_timeout = '60s'";
    connection.batch_execute(patient).await.unwrap();
    let analyze = async { connection.batch_execute("ANALYZE metadata_stamps").await };
    let release = async {
        let waits = "SELECT count(*) FROM pg_stat_activity
                      WHERE query LIKE 'ANALYZE%' AND wait_event_type = 'Lock'";
        counts(&url, waits).await;
        blocker.batch_execute("COMMIT").await.unwrap();
    };
    let (analyzed, ()) = tokio::join!(analyze, release);
    analyzed.unwrap();
    assert!(migration.ends().await, "{}", migration.output());
    let output = migration.output();
    assert!(
        output.contains("a deadlock ended the statement"),
        "{output}"
    );
    assert_eq!(count(&mut connection, VALID).await, 1);
}

#[tokio::test]
async fn a_terminal_shows_a_bar_instead_of_the_log() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let [_, mut blocker] = blocked_build(&url).await;

    let program = env!("CARGO_BIN_EXE_bridgebook");
    let command = format!("stty rows 50 cols 200; {program} migrate up --database-url '{url}'");
    let mut script = Command::new("script");
    script.env("TERM", "xterm");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    let mut migration = Migration::spawn_command(script);
    migration.writes("building an index: waits for pid").await;
    blocker.batch_execute("COMMIT").await.unwrap();
    assert!(migration.ends().await, "{}", migration.output());
    let output = migration.output();
    assert!(
        output.contains(" (idle in transaction), idx_metadata_stamps"),
        "{output}"
    );
    assert!(!output.contains("waits_for_pid"), "{output}");
}

/// Records and lists stamps until `stop` is set. Returns how long the longest call took, and how many
/// there were.
async fn load(tenant: Tenant, stop: &AtomicBool) -> Result<(Duration, u32), Status> {
    let mut client = tenant.client.clone();
    let mut longest = Duration::ZERO;
    let mut calls = 0;
    let workflow_id = tenant.start().await.id;
    while !stop.load(Ordering::Relaxed) {
        let stamp = NewStamp {
            workflow_id: workflow_id.clone(),
            file_hash: "hash".into(),
            ..NewStamp::default()
        };
        let record = RecordStampRequest {
            namespace: tenant.namespace.clone(),
            stamp: Some(stamp),
        };
        let list = ListStampsRequest {
            namespace: tenant.namespace.clone(),
            page_size: 10,
            ..ListStampsRequest::default()
        };
        let start = Instant::now();
        client.record_stamp(record).await?;
        longest = longest.max(start.elapsed());
        let start = Instant::now();
        client.list_stamps(list).await?;
        longest = longest.max(start.elapsed());
        calls += 2;
    }
    Ok((longest, calls))
}

/// A million rows. Ascending keys are inserted fastest.
const MILLION: &str = "INSERT INTO metadata_stamps (id, namespace, file_hash, created_at)
     SELECT lpad(to_hex(number), 32, '0')::uuid, 'big', 'hash-' || lpad(number::text, 8, '0'),
            now() - interval '1 hour' + number * interval '1 ms'
       FROM generate_series(1, 1000000) AS number";

#[tokio::test(flavor = "multi_thread")]
async fn an_index_on_a_million_rows_is_built_under_load() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let service = Server::spawn(&["--database-url", &url, "--migrate"]);
    let channel = service.serving().await;
    let mut connection = connect_database(&url).await;
    connection.batch_execute(FORGET).await.unwrap();
    connection.batch_execute(MILLION).await.unwrap();

    let stop = AtomicBool::new(false);
    let loads = join_all((0..4).map(|_| load(tenant_on(channel.clone()), &stop)));
    let build = async {
        let start = Instant::now();
        let mut migration = Migration::spawn(&url);
        let is_done = migration.ends().await;
        let time = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        assert!(is_done, "{}", migration.output());
        time
    };
    let (loads, time) = tokio::join!(loads, build);
    let loads: Result<Vec<_>, _> = loads.into_iter().collect();
    let loads = loads.expect("no call fails");
    let longest = loads.iter().map(|(longest, _)| *longest).max().unwrap();
    let calls: u32 = loads.iter().map(|(_, calls)| calls).sum();
    assert!(calls > 0);
    println!("built in {time:.1?}; of {calls} calls meanwhile, the longest took {longest:.1?}");
    assert_eq!(count(&mut connection, VALID).await, 1);
}
