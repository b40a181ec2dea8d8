//! A PostgreSQL that listens on TCP and speaks TLS, like one on another machine.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};

use super::{
    cluster::{TempDir, connect, own_cluster},
    eventually,
    process::{try_signal, unused_address},
    temp_dir,
};

/// A certificate and its key, in PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// The server. It ends when the value is dropped.
pub struct RemotePostgres {
    pub port: u16,
    pub user: &'static str,
    pub database: &'static str,
    dir: TempDir,
    child: Child,
    /// The address of its Unix socket, which needs no password.
    local: String,
}

impl RemotePostgres {
    /// Starts a server that refuses connections over TCP until it has other rules.
    pub async fn start() -> Self {
        let dir = temp_dir();
        let cluster = own_cluster(&dir).await;
        let (user, database) = (cluster.user(), cluster.database());
        let program = cluster.bin_dir().join("postgres");
        cluster.stop().await.unwrap();
        let directory = dir.0.join("cluster");
        let owner = fs::metadata(&directory).unwrap();
        let port = unused_address().port();
        let socket = dir.0.join("socket");
        let child = Command::new(program)
            .arg("-D")
            .arg(&directory)
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
            .args(["-c", &format!("port={port}")])
            .args([
                "-c",
                &format!("unix_socket_directories={}", socket.display()),
            ])
            .uid(owner.uid())
            .gid(owner.gid())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let host = socket.display().to_string().replace('/', "%2F");
        let server = RemotePostgres {
            port,
            user,
            database,
            dir,
            child,
            local: format!("postgres://{user}@{host}:{port}/{database}"),
        };
        eventually("PostgreSQL accepts connections", || async {
            AsyncPgConnection::establish(&server.local).await.ok()
        })
        .await;
        server
    }

    /// Connects over the Unix socket.
    pub async fn local(&self) -> AsyncPgConnection {
        connect(&self.local).await
    }

    /// Returns the URL of a user with these parameters.
    pub fn url(&self, user: &str, parameters: &str) -> String {
        let RemotePostgres { port, database, .. } = self;
        format!("postgres://{user}@localhost:{port}/{database}?{parameters}")
    }

    /// Runs a statement.
    pub async fn run(&self, statement: &str) {
        self.local().await.batch_execute(statement).await.unwrap();
    }

    /// Sets the rules for connections over TCP, as in pg_hba.conf.
    pub async fn allow(&self, rules: &str) {
        self.write(
            "cluster/pg_hba.conf",
            &format!("local all all trust\n{rules}\n"),
        );
        self.run("SELECT pg_reload_conf()").await;
    }

    /// Turns TLS on with a certificate, and trusts clients whose certificate `client_ca` has signed.
    pub async fn present(&self, identity: &Identity, client_ca: Option<&str>) {
        self.write("cluster/server.crt", &identity.certificate);
        self.write("cluster/server.key", &identity.key);
        self.run("ALTER SYSTEM SET ssl = on").await;
        if let Some(client_ca) = client_ca {
            self.write("cluster/ca.crt", client_ca);
            self.run("ALTER SYSTEM SET ssl_ca_file = 'ca.crt'").await;
        }
        self.run("SELECT pg_reload_conf()").await;
    }

    /// Turns TLS off.
    pub async fn present_nothing(&self) {
        self.run("ALTER SYSTEM SET ssl = off").await;
        self.run("SELECT pg_reload_conf()").await;
    }

    /// Writes a file that belongs to the server. Returns its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let owner = fs::metadata(self.dir.0.join("cluster")).unwrap();
        let given = chown(&path, Some(owner.uid()), Some(owner.gid()));
        // Only root may give files away. Without root, they belong to the right user anyway.
        assert!(
            given.is_ok() || given.is_err_and(|it| it.kind() == io::ErrorKind::PermissionDenied)
        );
        path
    }
}

impl Drop for RemotePostgres {
    fn drop(&mut self) {
        try_signal("QUIT", self.child.id());
        let _ = self.child.wait();
    }
}
