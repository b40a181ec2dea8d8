//! `bridgebook database move-out`.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use bridgebook::embedded;
use diesel_async::SimpleAsyncConnection;

use super::{command, fail, has_token, run, store_token, succeed};
use crate::{
    fsm,
    support::{
        Identity, Pki, RemotePostgres, Server, connect_database, count, eventually, own_cluster,
        send_signal, stderr, temp_dir, tenant_on, use_transaction_ids,
    },
};

/// A password that a URL must encode.
const PASSWORD: &str = r#"a b:c@d/e?f#g%h&i=j"k\l"#;

/// The number of our tables in a database.
const TABLES: &str = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";

/// A database on another machine, which accepts a role with a password over TLS only.
struct Target {
    server: RemotePostgres,
    url: String,
}

impl Target {
    async fn start() -> Self {
        let server = RemotePostgres::start().await;
        let pki = Pki::new();
        let read = |name: &str| fs::read_to_string(pki.path(name)).unwrap();
        let identity = Identity {
            certificate: read("certificate.pem"),
            key: read("key.pem"),
        };
        server.present(&identity, None).await;
        let create = format!("CREATE ROLE node LOGIN PASSWORD '{PASSWORD}'");
        server.run(&create).await;
        server
            .run("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
            .await;
        server
            .allow("hostssl all all 127.0.0.1/32 scram-sha-256")
            .await;
        let roots = server.write("root.crt", &read("root.pem"));
        let encoded = PASSWORD.bytes().map(|byte| format!("%{byte:02X}"));
        let user = format!("node:{}", encoded.collect::<String>());
        let parameters = format!("sslmode=verify-full&sslrootcert={}", roots.display());
        let url = server.url(&user, &parameters);
        Target { server, url }
    }

    /// Makes each CREATE INDEX do something first. The tables are filled by then.
    async fn before_indexes(&self, statement: &str) {
        let function = format!(
            "CREATE SCHEMA IF NOT EXISTS broken; GRANT USAGE ON SCHEMA broken TO PUBLIC;
             CREATE FUNCTION broken.step() RETURNS event_trigger LANGUAGE plpgsql
                 AS $$ BEGIN {statement}; END $$;
             CREATE EVENT TRIGGER broken ON ddl_command_start WHEN TAG IN ('CREATE INDEX')
                 EXECUTE FUNCTION broken.step()"
        );
        self.server.run(&function).await;
    }

    async fn repair(&self) {
        self.server.run("DROP SCHEMA broken CASCADE").await;
    }

    async fn count(&self, sql: &str) -> i64 {
        count(&mut self.server.local().await, sql).await
    }
}

/// Returns the command lines of the programs that a command runs.
fn arguments_of_children(pid: u32) -> String {
    let children = Command::new("pgrep")
        .args(["-P", &pid.to_string()])
        .output();
    let children = String::from_utf8(children.expect("pgrep runs").stdout).unwrap();
    let arguments = children
        .lines()
        .map(|child| fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default());
    let arguments = String::from_utf8(arguments.collect::<Vec<_>>().concat()).unwrap();
    assert!(arguments.contains("pg_restore"), "{arguments}");
    arguments
}

/// Checks that a data directory can still be served.
fn assert_usable(data_dir: &Path) {
    assert!(has_token(data_dir));
    assert!(!data_dir.join("cluster.moved").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_moved_and_served_there_only() {
    let (dir, target) = (temp_dir(), Target::start().await);
    let data_dir = dir.0.to_str().unwrap();
    let mut server = Server::spawn(&["--data-dir", data_dir]);
    let tenant = tenant_on(server.serving().await);
    // The target has not assigned these ids.
    let private = embedded::database_url(&dir.0).unwrap();
    use_transaction_ids(&private).await;
    let workflow = tenant.start_processing().await;
    let positions = fsm::positions(&tenant, "workflow").await;
    let floor = "INSERT INTO journal_floors (namespace, xid, seq, transition_id)
                 SELECT 'other', xid, seq, id FROM fsm_transitions";
    let mut database = connect_database(&private).await;
    database.batch_execute(floor).await.unwrap();
    drop(database);
    let error = fail(&["database", "move-out", &target.url], &dir.0);
    assert!(error.contains("in use"), "{error}");
    assert!(server.terminate().success());
    target
        .server
        .run("GRANT CREATE ON SCHEMA public TO node")
        .await;

    let printed = succeed(&["database", "move-out", &target.url], &dir.0);
    for table in ["workflow_executions ", "journal_floors "] {
        let row = printed.lines().find(|line| line.starts_with(table));
        let row = row.expect("a row for each table");
        let numbers: Vec<_> = row.split_whitespace().skip(1).collect();
        assert_eq!(numbers, ["1", "1"], "{printed}");
    }
    assert!(printed.contains("sslmode=verify-full"), "{printed}");
    assert!(!printed.contains(PASSWORD), "{printed}");
    assert_eq!(
        target
            .count("SELECT count(*) FROM workflow_executions")
            .await,
        1
    );

    for arguments in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["token", "list"],
        &["migrate", "up"],
        &["database", "backup", "file"],
        &["database", "upgrade"],
        &["database", "move-out", &target.url],
    ] {
        let output = run(arguments, &dir.0);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let error = stderr(&output);
        assert!(error.contains("cluster.moved"), "{error}");
        assert!(error.contains("localhost:"), "{error}");
    }
    let moved = Server::spawn(&["--database-url", &target.url]);
    let mut same = tenant_on(moved.serving().await);
    same.namespace.clone_from(&tenant.namespace);
    assert_eq!(same.get(&workflow).await.workflow.unwrap().id, workflow.id);
    same.start().await;
    let continued = fsm::positions(&same, "workflow").await;
    assert_eq!(continued[..1], positions);
    assert!(continued.len() == 2 && continued.is_sorted());
    // The move has adopted the journal already.
    assert!(!moved.log().contains("adopted the journal"));
    // As its text says.
    fs::remove_file(dir.0.join("cluster.moved")).unwrap();
    succeed(&["token", "list"], &dir.0);
}

/// Waits until the target has TLS, and lets the role create tables.
async fn let_create(target: &Target, data_dir: &Path) {
    // TLS is on some time after the server was told to.
    eventually("the lack of a right", || async {
        fail(&["database", "move-out", &target.url], data_dir)
            .contains("GRANT CREATE ON SCHEMA public TO node")
            .then_some(())
    })
    .await;
    target
        .server
        .run("GRANT CREATE ON SCHEMA public TO node")
        .await;
}

/// The role of the target may not read them. The private database has two tables with one name.
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_others_are_not_counted() {
    let (dir, target) = (super::stopped(), Target::start().await);
    store_token(&dir.0);
    {
        let cluster = own_cluster(&dir).await;
        let mut database = connect_database(&cluster.database_url()).await;
        let second = "CREATE SCHEMA second;
                      CREATE TABLE second.api_tokens AS SELECT generate_series(1, 7) AS id";
        database.batch_execute(second).await.unwrap();
        cluster.stop().await.unwrap();
    }
    let_create(&target, &dir.0).await;
    let foreign = "CREATE SCHEMA cloud; CREATE TABLE cloud.metrics ();
        CREATE TABLE cloud.api_tokens ();
        DO $$ BEGIN
            EXECUTE format('GRANT CREATE ON DATABASE %I TO node', current_database());
        END $$";
    target.server.run(foreign).await;
    let printed = succeed(&["database", "move-out", &target.url], &dir.0);
    let numbers = |name: &str| {
        let row = printed.lines().find(|line| line.starts_with(name));
        let row = row.expect("a row for each table");
        row.split_whitespace().skip(1).collect::<Vec<_>>()
    };
    assert_eq!(numbers("api_tokens "), ["1", "1"], "{printed}");
    assert_eq!(numbers("second.api_tokens "), ["7", "7"], "{printed}");
    assert!(!printed.contains("metrics"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_fails_changes_neither_database() {
    let (dir, target) = (super::stopped(), Target::start().await);
    store_token(&dir.0);
    let move_out = ["database", "move-out", &target.url];
    let_create(&target, &dir.0).await;
    for (prepare, undo, expected) in [
        (
            "ALTER ROLE node SET search_path = other",
            "ALTER ROLE node RESET search_path",
            "search_path",
        ),
        (
            "CREATE TABLE public.workflow_steps ()",
            "DROP TABLE public.workflow_steps",
            "has a table workflow_steps already",
        ),
    ] {
        target.server.run(prepare).await;
        let error = fail(&move_out, &dir.0);
        assert!(error.contains(expected), "{error}");
        target.server.run(undo).await;
    }
    assert_usable(&dir.0);

    target.before_indexes("RAISE 'no more room'").await;
    let error = fail(&move_out, &dir.0);
    assert!(error.contains("both databases are unchanged"), "{error}");
    assert!(error.contains("pg_restore failed"), "{error}");
    assert!(!error.contains(PASSWORD), "{error}");
    assert_eq!(target.count(TABLES).await, 0);
    assert_usable(&dir.0);
    target.repair().await;

    target.before_indexes("PERFORM pg_sleep(600)").await;
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    for signal in ["KILL", "INT"] {
        let mut running = command(&move_out, &dir.0);
        let running = running.stderr(Stdio::piped()).spawn().unwrap();
        eventually("the tables are filled", || async {
            (target.count(sleeping).await > 0).then_some(())
        })
        .await;
        assert!(!arguments_of_children(running.id()).contains("a b:c@d"));
        send_signal(signal, running.id());
        let output = running.wait_with_output().unwrap();
        assert!(!output.status.success(), "{}", stderr(&output));
        let end = "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE wait_event = 'PgSleep') ended";
        target.count(end).await;
        assert_eq!(target.count(TABLES).await, 0);
        assert_usable(&dir.0);
    }
    eventually("no session is left", || async {
        (target.count(sleeping).await == 0).then_some(())
    })
    .await;
    target.repair().await;
    succeed(&move_out, &dir.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_lacks_rows_is_not_served() {
    let (dir, target) = (super::stopped(), Target::start().await);
    store_token(&dir.0);
    let_create(&target, &dir.0).await;
    target.before_indexes("DELETE FROM public.api_tokens").await;
    let error = fail(&["database", "move-out", &target.url], &dir.0);
    assert!(error.contains("drop the tables in the target"), "{error}");
    let differing = "row counts differ: api_tokens has 0 instead of 1";
    assert!(error.contains(differing), "{error}");
    assert_usable(&dir.0);
}

/// This test holds the lock as the command does.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_waits_for_a_move_does_not_serve_the_moved_database() {
    let dir = super::stopped();
    let lock = File::open(dir.0.join("lock")).unwrap();
    lock.lock().unwrap();
    let mut serve = command(&["serve", "--listen", "127.0.0.1:0"], &dir.0);
    let serve = serve.stderr(Stdio::piped()).spawn().unwrap();
    let path = dir.0.join("lock");
    eventually("the service has opened the lock", || async {
        let files = fs::read_dir(format!("/proc/{}/fd", serve.id())).unwrap();
        let mut files = files.map(|it| fs::read_link(it.unwrap().path()).unwrap_or_default());
        files.any(|it| it == path).then_some(())
    })
    .await;
    fs::write(dir.0.join("cluster.moved"), "elsewhere:5432\n").unwrap();
    drop(lock);
    let output = serve.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(error.contains("was moved to elsewhere:5432"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfit_target_is_named() {
    let dir = super::stopped();
    for (url, code, expected) in [
        ("postgres://a@127.0.0.1:1/b", 1, "127.0.0.1:1"),
        ("nonsense", 64, "URL: expected a URL"),
        ("postgres://a@b/c?sslcrl=x", 64, "URL: sslcrl"),
    ] {
        let output = run(&["database", "move-out", url], &dir.0);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}
