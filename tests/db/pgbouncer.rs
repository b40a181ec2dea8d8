//! PgBouncer between the service and PostgreSQL.

use std::{
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use bridgebook::embedded::Embedded;

use crate::support::{
    Server, TempDir, bridgebook, eventually, own_cluster, stderr, temp_dir, tenant_on,
};

/// The name of the socket: its directory belongs to one test, so no other program uses it.
const PORT: u16 = 6432;

/// A running PgBouncer. It is killed when the value is dropped.
struct Bouncer {
    url: String,
    socket: PathBuf,
    child: Child,
}

impl Bouncer {
    /// Starts a PgBouncer in front of a cluster in a directory.
    fn start(cluster: &Embedded, dir: &TempDir, mode: &str) -> Self {
        let config = dir.0.join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n\
             {database} = host={host} port={port} user={user}\n\
             [pgbouncer]\n\
             listen_addr =\nlisten_port = {PORT}\nunix_socket_dir = {host}\n\
             auth_type = any\npool_mode = {mode}\ndefault_pool_size = 50\n",
            database = cluster.database(),
            host = cluster.socket_dir().display(),
            port = cluster.port(),
            user = cluster.user(),
        );
        fs::write(&config, settings).unwrap();
        // As the user of the cluster, which owns the socket. PgBouncer refuses to be root.
        let owner = fs::metadata(dir.0.join("cluster")).unwrap();
        let child = Command::new("pgbouncer")
            .arg("--quiet")
            .arg(&config)
            .uid(owner.uid())
            .gid(owner.gid())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer runs");
        Bouncer {
            url: cluster
                .database_url()
                .replace(&format!(":{}/", cluster.port()), &format!(":{PORT}/")),
            socket: cluster.socket_dir().join(format!(".s.PGSQL.{PORT}")),
            child,
        }
    }

    /// Waits until the PgBouncer listens. Returns its URL.
    async fn url(&self) -> String {
        eventually("pgbouncer listens", || async {
            tokio::net::UnixStream::connect(&self.socket).await.ok()
        })
        .await;
        self.url.clone()
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn session_pooling_is_accepted() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let bouncer = Bouncer::start(&cluster, &dir, "session");
    let url = bouncer.url().await;
    let server = Server::spawn(&["--database-url", &url, "--migrate"]);
    let tenant = tenant_on(server.serving().await);
    let workflow = tenant.start().await;
    assert_eq!(tenant.get(&workflow).await.workflow.unwrap(), workflow);
}

#[tokio::test]
async fn transaction_and_statement_pooling_are_refused_at_startup() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    for mode in ["transaction", "statement"] {
        let bouncer = Bouncer::start(&cluster, &dir, mode);
        let url = bouncer.url().await;
        let output = bridgebook()
            .args(["serve", "--listen", "127.0.0.1:0", "--database-url", &url])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        assert!(text.contains("pool_mode = session"), "{mode}: {text}");
    }
}
