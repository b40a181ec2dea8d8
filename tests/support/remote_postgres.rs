//! A PostgreSQL that listens on TCP and speaks TLS, like one on another machine.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

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

/// The expiry of certificates that are valid.
pub const FAR: i32 = 4096;

pub type Authority = CertifiedIssuer<'static, KeyPair>;

pub fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Signs a certificate for a host, valid until the beginning of a year.
pub fn signed(by: &Authority, host: &str, until: i32, key: &KeyPair) -> Identity {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    Identity {
        certificate: params.signed_by(key, by).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// The server. It ends when the value is dropped.
pub struct RemotePostgres {
    pub port: u16,
    pub user: &'static str,
    pub database: &'static str,
    dir: TempDir,
    bin_dir: PathBuf,
    child: Child,
    /// The address of its Unix socket, which needs no password.
    local: String,
}

impl RemotePostgres {
    /// Starts a server that refuses connections over TCP until it has other rules.
    pub async fn start() -> Self {
        let dir = temp_dir();
        let cluster = own_cluster(&dir).await;
        let bin_dir = cluster.bin_dir().to_owned();
        cluster.stop().await.unwrap();
        RemotePostgres::run_in(dir, bin_dir).await
    }

    /// Starts a standby of this server, with its settings and rules.
    pub async fn standby(&self) -> Self {
        let dir = temp_dir();
        fs::create_dir(&dir.0).unwrap();
        let cluster = dir.0.join("cluster");
        DirBuilder::new().mode(0o700).create(&cluster).unwrap();
        give(&cluster, &self.dir.0.join("cluster"));
        give(&dir.0, &self.dir.0.join("cluster"));
        let status = as_owner_of(&cluster, &self.bin_dir.join("pg_basebackup"))
            .args(["--dbname", &self.local, "--checkpoint=fast"])
            .args(["--write-recovery-conf", "-D"])
            .arg(&cluster)
            .status();
        assert!(status.unwrap().success());
        RemotePostgres::run_in(dir, self.bin_dir.clone()).await
    }

    async fn run_in(dir: TempDir, bin_dir: PathBuf) -> Self {
        let cluster = dir.0.join("cluster");
        let port = unused_address().port();
        let socket = dir.0.join("socket");
        if !socket.exists() {
            fs::create_dir(&socket).unwrap();
            give(&socket, &cluster);
        }
        let child = as_owner_of(&cluster, &bin_dir.join("postgres"))
            .arg("-D")
            .arg(&cluster)
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
            .args(["-c", &format!("port={port}")])
            .args([
                "-c",
                &format!("unix_socket_directories={}", socket.display()),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let host = socket.display().to_string().replace('/', "%2F");
        let (user, database) = ("bridgebook", "bridgebook");
        let server = RemotePostgres {
            port,
            user,
            database,
            dir,
            bin_dir,
            child,
            local: format!("postgres://{user}@{host}:{port}/{database}"),
        };
        eventually("PostgreSQL accepts connections", || async {
            AsyncPgConnection::establish(&server.local).await.ok()
        })
        .await;
        server
    }

    /// Stops the server at once.
    pub fn kill(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            try_signal("QUIT", self.child.id());
            let _ = self.child.wait();
        }
    }

    /// Returns a command that runs as the user of the server.
    pub fn command(&self, program: &str) -> Command {
        as_owner_of(&self.dir.0.join("cluster"), Path::new(program))
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
            &format!("local all,replication all trust\n{rules}\n"),
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

    /// Returns the path of a file of [`RemotePostgres::write`].
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.0.join(name)
    }

    /// Writes a file that belongs to the server. Returns its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        give(&path, &self.dir.0.join("cluster"));
        path
    }
}

/// Gives a file to the owner of a directory.
fn give(path: &Path, to_owner_of: &Path) {
    let owner = fs::metadata(to_owner_of).unwrap();
    let given = chown(path, Some(owner.uid()), Some(owner.gid()));
    // Only root may give files away. Without root, they belong to the right user anyway.
    assert!(given.is_ok() || given.is_err_and(|it| it.kind() == io::ErrorKind::PermissionDenied));
}

/// Returns a command that runs as the owner of a directory.
fn as_owner_of(directory: &Path, program: &Path) -> Command {
    let owner = fs::metadata(directory).unwrap();
    let mut command = Command::new(program);
    command.uid(owner.uid()).gid(owner.gid()).current_dir("/");
    command
}

impl Drop for RemotePostgres {
    fn drop(&mut self) {
        self.kill();
    }
}
