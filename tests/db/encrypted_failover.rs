//! Several hosts, a standby that is promoted, and PgBouncer, all with TLS.

use std::{
    path::PathBuf,
    process::{Child, Stdio},
};

use bridgebook::db::{self, migrations};
use tokio::net::TcpStream;
use tonic::Code;

use super::tls::encrypted;
use crate::support::{
    Authority, FAR, Failure, RemotePostgres, Server, bridgebook, count, database_address,
    eventually, failure, signed, stderr, tenant_on, unused_address,
};

/// Returns the number of connections from other machines that are encrypted, and of those that are not.
async fn connections(server: &RemotePostgres) -> [i64; 2] {
    let remote = "FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL";
    let mut local = server.local().await;
    let encrypted = format!("SELECT count(*) {remote} AND ssl");
    let other = format!("SELECT count(*) {remote} AND NOT ssl");
    [
        count(&mut local, &encrypted).await,
        count(&mut local, &other).await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_takes_over_with_tls() {
    let (mut primary, root) = encrypted().await;
    let standby = primary.standby().await;
    let roots = standby.write("root.crt", &root.pem());
    let parameters = format!("sslmode=verify-full&sslrootcert={}", roots.display());
    let (user, database) = (primary.user, primary.database);
    // The standby is the first host, so each connection finds that it is read-only.
    let url = format!(
        "postgres://{user}@localhost:{},localhost:{}/{database}?{parameters}",
        standby.port, primary.port
    );
    let server = Server::spawn(&["--database-url", &url, "--migrate"]);
    let tenant = tenant_on(server.serving().await);
    tenant.start().await;
    let [encrypted, other] = connections(&primary).await;
    assert!(encrypted >= 2 && other == 0, "{encrypted} {other}");
    eventually("the standby has no connection that stays", || async {
        (connections(&standby).await == [0, 0]).then_some(())
    })
    .await;
    eventually("the standby has the workflow", || async {
        let mut standby = standby.local().await;
        let workflows = "SELECT count(*) FROM workflow_executions";
        (count(&mut standby, workflows).await == 1).then_some(())
    })
    .await;

    primary.kill();
    let request = tenant.new_workflow();
    let mut client = tenant.client.clone();
    let away = Failure::new(Code::Unavailable, "DATABASE_UNAVAILABLE");
    let refused = client.start_workflow(request.clone()).await;
    assert_eq!(failure(refused), away);
    standby.run("SELECT pg_promote()").await;
    eventually("workflows start again", || async {
        let mut client = client.clone();
        client.start_workflow(request.clone()).await.ok()
    })
    .await;
    let [encrypted, other] = connections(&standby).await;
    assert!(encrypted >= 1 && other == 0, "{encrypted} {other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn target_session_attrs_chooses_the_kind_of_server() {
    let (primary, root) = encrypted().await;
    let standby = primary.standby().await;
    let roots = standby.write("root.crt", &root.pem());
    let connect = async |attrs: &str| {
        let parameters = format!("sslmode=verify-full&sslrootcert={}{attrs}", roots.display());
        let url = standby.url(standby.user, &parameters);
        db::connect(&database_address(&url)).await
    };
    for attrs in [
        "",
        "&target_session_attrs=read-write",
        "&target_session_attrs=primary",
    ] {
        let error = connect(attrs).await.err().unwrap().to_string();
        assert!(error.contains("does not allow writes"), "{error}");
    }
    connect("&target_session_attrs=any").await.unwrap();

    // A service waits for the promotion, and says so.
    let parameters = format!("sslmode=verify-full&sslrootcert={}", roots.display());
    let migrated = primary.url(primary.user, &parameters);
    migrations::up(&database_address(&migrated)).await.unwrap();
    let url = standby.url(standby.user, &parameters);
    let address = database_address(&url);
    eventually("the standby has the schema", || async {
        let pending = migrations::pending(&address).await.ok()?;
        pending.is_empty().then_some(())
    })
    .await;
    let server = Server::spawn(&["--database-url", &url]);
    eventually("the cause is logged", || async {
        let log = server.log();
        let mut lines = log
            .lines()
            .filter(|line| line.contains("waiting for the database"));
        lines
            .any(|line| line.contains("does not allow writes"))
            .then_some(())
    })
    .await;
    standby.run("SELECT pg_promote()").await;
    server.serving().await;
}

/// A PgBouncer that speaks TLS on both sides. It is killed when the value is dropped.
struct Bouncer {
    port: u16,
    roots: PathBuf,
    child: Child,
}

impl Bouncer {
    /// Starts a PgBouncer in front of a server.
    async fn start(server: &RemotePostgres, root: &Authority, mode: &str) -> Self {
        let port = unused_address().port();
        let key = rcgen::KeyPair::generate().unwrap();
        let identity = signed(root, "localhost", FAR, &key);
        let roots = server.write("root.crt", &root.pem());
        let certificate = server.write("bouncer.crt", &identity.certificate);
        let key = server.write("bouncer.key", &identity.key);
        let settings = format!(
            "[databases]\n\
             {database} = host=localhost port={server_port} user={user}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = {mode}\ndefault_pool_size = 50\n\
             client_tls_sslmode = require\n\
             client_tls_cert_file = {certificate}\nclient_tls_key_file = {key}\n\
             server_tls_sslmode = verify-full\nserver_tls_ca_file = {roots}\n",
            database = server.database,
            server_port = server.port,
            user = server.user,
            certificate = certificate.display(),
            key = key.display(),
            roots = roots.display(),
        );
        let config = server.write("pgbouncer.ini", &settings);
        let child = server
            .command("pgbouncer")
            .arg("--quiet")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer runs");
        eventually("pgbouncer listens", || async {
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        Bouncer { port, roots, child }
    }

    fn url(&self, server: &RemotePostgres) -> String {
        let (user, database) = (server.user, server.database);
        let (port, roots) = (self.port, self.roots.display());
        format!(
            "postgres://{user}@localhost:{port}/{database}?sslmode=verify-full&sslrootcert={roots}"
        )
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_with_tls_on_both_sides_pools_sessions() {
    let (server, root) = encrypted().await;
    let bouncer = Bouncer::start(&server, &root, "session").await;
    let url = bouncer.url(&server);
    let service = Server::spawn(&["--database-url", &url, "--migrate"]);
    let tenant = tenant_on(service.serving().await);
    let workflow = tenant.start().await;
    assert_eq!(tenant.get(&workflow).await.workflow.unwrap(), workflow);
    let [encrypted, other] = connections(&server).await;
    assert!(encrypted >= 2 && other == 0, "{encrypted} {other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_that_shares_sessions_is_detected_over_tls() {
    let (server, root) = encrypted().await;
    let bouncer = Bouncer::start(&server, &root, "transaction").await;
    let url = bouncer.url(&server);
    let output = bridgebook()
        .args(["serve", "--listen", "127.0.0.1:0", "--database-url", &url])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("pool_mode = session"));
}
