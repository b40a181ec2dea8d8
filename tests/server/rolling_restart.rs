//! Replicas behind a load balancer that are restarted in turn.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bridgebook::{client::retry::Retries, proto::v1::StartWorkflowRequest};
use futures_util::future::join_all;
use tonic::{Code, Status};

use crate::support::{
    Figures, Schema, Server, TempDir, Tenant, connect, eventually, example, free_address, get,
    new_id, temp_dir, tenant_on,
};

/// HAProxy, which is killed when the value is dropped.
struct Balancer {
    address: SocketAddr,
    child: Child,
    _dir: TempDir,
}

impl Balancer {
    /// Starts one with the file of deploy/, but for the ports.
    fn start(replicas: &[Replica; 2]) -> Self {
        let [one, two] = replicas;
        let address = free_address();
        let path = example("../deploy/haproxy.cfg");
        let mut config = fs::read_to_string(path).unwrap();
        for (documented, real) in [
            ("127.0.0.1:50050".to_owned(), address.to_string()),
            ("127.0.0.1:50051".to_owned(), one.address.to_string()),
            ("127.0.0.1:50052".to_owned(), two.address.to_string()),
            ("port 9464".to_owned(), format!("port {}", one.http.port())),
            ("port 9465".to_owned(), format!("port {}", two.http.port())),
        ] {
            assert!(config.contains(&documented), "{documented}");
            config = config.replace(&documented, &real);
        }
        let dir = temp_dir();
        fs::create_dir_all(&dir.0).unwrap();
        let file = dir.0.join("haproxy.cfg");
        fs::write(&file, config).unwrap();
        let child = Command::new("haproxy")
            .arg("-f")
            .arg(&file)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("haproxy runs");
        Balancer {
            address,
            child,
            _dir: dir,
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a replica is.
struct Replica {
    address: SocketAddr,
    http: SocketAddr,
}

impl Replica {
    fn new() -> Self {
        Replica {
            address: free_address(),
            http: free_address(),
        }
    }

    fn start(&self, url: &str) -> Server {
        let http = self.http.to_string();
        let arguments = ["--database-url", url, "--migrate", "--drain-pause", "2"];
        let arguments = [&arguments[..], &["--metrics-listen", &http]].concat();
        Server::spawn_on(self.address, &arguments)
    }

    /// Waits until the balancer has noticed that it is ready.
    async fn is_called(&self) {
        self.is_ready().await;
        eventually("the replica is called", || async {
            let figures = Figures::of(self.http).await;
            let start = [("grpc_method", "StartWorkflow")];
            (figures.sum("grpc_server_started_total", &start) > 0.0).then_some(())
        })
        .await;
    }

    async fn is_ready(&self) {
        eventually("the replica is ready", || async {
            (get(self.http, "/readyz").await?.0 == 200).then_some(())
        })
        .await;
    }
}

/// Starts workflows until it is time to stop. Of failures only UNAVAILABLE may be.
async fn write(tenant: Tenant, stop: &AtomicBool, done: &AtomicUsize) -> Result<(), Status> {
    while !stop.load(Ordering::Relaxed) {
        let request = StartWorkflowRequest {
            id: new_id(),
            ..tenant.new_workflow()
        };
        let mut retries = Retries::new(Duration::from_secs(30));
        while let Err(status) = tenant.client.clone().start_workflow(request.clone()).await {
            match (status.code(), retries.pause_after(&status)) {
                (Code::Unavailable, Some(pause)) => tokio::time::sleep(pause).await,
                _ => return Err(status),
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_are_restarted_in_turn_fail_no_call() {
    let schema = Schema::create().await;
    let url = schema.url();
    let replicas = [Replica::new(), Replica::new()];
    let mut servers = Vec::new();
    for replica in &replicas {
        servers.push(replica.start(&url));
        replica.is_ready().await;
    }
    let balancer = Balancer::start(&replicas);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let callers = (0..8).map(|_| write(tenant_on(connect(balancer.address)), &stop, &done));
    let progress = async || {
        let before = done.load(Ordering::Relaxed);
        eventually("calls go on", async || {
            (done.load(Ordering::Relaxed) > before + 100).then_some(())
        })
        .await;
    };
    let restarts = async {
        for _ in 0..2 {
            for (replica, server) in replicas.iter().zip(&mut servers) {
                progress().await;
                let status = tokio::task::block_in_place(|| server.terminate());
                assert!(status.success(), "{status}");
                progress().await;
                *server = replica.start(&url);
                replica.is_called().await;
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (callers, ()) = tokio::join!(join_all(callers), restarts);
    for caller in callers {
        caller.unwrap();
    }
    let started = "SELECT count(*) FROM workflow_executions";
    let done = i64::try_from(done.load(Ordering::Relaxed)).unwrap();
    assert_eq!(schema.count(started).await, done);
}
