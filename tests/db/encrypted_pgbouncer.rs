//! PgBouncer with TLS on both sides.

use std::{
    path::PathBuf,
    process::{Child, Stdio},
};

use tokio::net::TcpStream;

use super::{encrypted_failover::connections, tls::encrypted};
use crate::support::{
    Authority, FAR, RemotePostgres, Server, bridgebook, eventually, signed, stderr, tenant_on,
    unused_address,
};

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
    let output = bridgebook()
        .args(["migrate", "up", "--database-url", &url])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("pool_mode = session"));
}
