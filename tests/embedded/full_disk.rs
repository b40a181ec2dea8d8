//! A private PostgreSQL on a disk that gets full. The disk is a tmpfs in a mount namespace of the
//! service, for which the test needs no privileges.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
    process::Command,
};

use diesel_async::SimpleAsyncConnection;

use super::start_workflow;
use crate::support::{Server, TempDir, bridgebook, connect_database, eventually, temp_dir};

/// Mounts a disk, and runs a program as an ordinary user. A new cluster takes 47 MB.
const MOUNT: &str = r#"
    mount -t tmpfs -o size=100m none "$0" &&
    exec unshare --user --map-user=1000 --map-group=1000 "$@"
"#;

/// A service on a disk of its own.
struct OnDisk {
    server: Server,
    /// The disk, as seen from here.
    disk: PathBuf,
    _dir: TempDir,
}

impl OnDisk {
    fn start() -> Self {
        let dir = temp_dir();
        std::fs::create_dir(&dir.0).unwrap();
        let mut program = Command::new("unshare");
        program.args(["--map-root-user", "--mount", "/bin/sh", "-c", MOUNT]);
        program.arg(&dir.0).arg(bridgebook().get_program());
        program.env_remove("DATABASE_URL");
        let data_dir = dir.0.join("data");
        let arguments = ["--data-dir", data_dir.to_str().unwrap()];
        let server = Server::spawn_program(program, &arguments).expect_errors();
        let inside = dir.0.strip_prefix("/").unwrap();
        let disk = PathBuf::from(format!("/proc/{}/root", server.pid())).join(inside);
        OnDisk {
            server,
            disk,
            _dir: dir,
        }
    }

    fn ballast(&self) -> PathBuf {
        self.disk.join("ballast")
    }

    /// Writes a file until the disk is full.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        let full = loop {
            if let Err(error) = ballast.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    /// Makes the next write need a new file of the write-ahead log.
    async fn finish_wal_file(&self) {
        let socket = self.disk.join("data/socket");
        let host = socket.to_str().unwrap().replace('/', "%2F");
        let url = format!("postgres://bridgebook@{host}:5432/bridgebook");
        let mut admin = connect_database(&url).await;
        admin.batch_execute("SELECT pg_switch_wal()").await.unwrap();
    }

    async fn is_down(&self) {
        eventually("the log has the cause", || async {
            let cause = "PostgreSQL does not start: the disk of the data directory is full";
            self.server.log().contains(cause).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_an_outage_that_ends_when_there_is_space() {
    let app = OnDisk::start();
    app.server.serving().await;
    assert!(start_workflow(&app.server).await);
    app.fill();
    app.finish_wal_file().await;
    assert!(!start_workflow(&app.server).await);
    app.is_down().await;
    assert!(!start_workflow(&app.server).await);
    std::fs::remove_file(app.ballast()).unwrap();
    eventually("calls succeed again", || async {
        start_workflow(&app.server).await.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_postgresql_is_down_stops_in_order() {
    let mut app = OnDisk::start();
    app.server.serving().await;
    app.fill();
    app.finish_wal_file().await;
    assert!(!start_workflow(&app.server).await);
    app.is_down().await;
    assert!(app.server.terminate().success(), "{}", app.server.log());
}
