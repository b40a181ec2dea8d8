//! A rolling restart of replicas behind a load balancer.

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
    Figures, ReservedPort, Schema, Server, TempDir, Tenant, connect, eventually, example, get,
    new_id, temp_dir, tenant_on, unused_address,
};

/// A running HAProxy. It is killed when the value is dropped.
struct Balancer {
    port: ReservedPort,
    child: Child,
    _dir: TempDir,
}

impl Balancer {
    /// Starts HAProxy with the configuration of deploy/, but with other ports.
    fn start(replicas: &[Replica; 2]) -> Self {
        let [one, two] = replicas;
        let port = ReservedPort::new();
        let path = example("../deploy/haproxy.cfg");
        let mut config = fs::read_to_string(path).unwrap();
        for (documented, real) in [
            ("127.0.0.1:50050".to_owned(), port.address.to_string()),
            ("127.0.0.1:50051".to_owned(), one.server.address.to_string()),
            ("127.0.0.1:50052".to_owned(), two.server.address.to_string()),
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
            port,
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

/// A replica that keeps its ports when it is restarted.
struct Replica {
    server: Server,
    http: SocketAddr,
}

impl Replica {
    fn start(url: &str) -> Self {
        let http = unused_address();
        let server = Server::spawn(&Replica::arguments(url, &http.to_string()));
        Replica { server, http }
    }

    fn stop(&mut self) {
        let status = tokio::task::block_in_place(|| self.server.terminate());
        assert!(status.success(), "{status}");
    }

    fn restart(&mut self, url: &str) {
        let http = self.http.to_string();
        self.server = Server::spawn_on(self.server.address, &Replica::arguments(url, &http));
    }

    fn arguments<'a>(url: &'a str, http: &'a str) -> [&'a str; 7] {
        [
            "--database-url",
            url,
            "--migrate",
            "--drain-pause",
            "2",
            "--metrics-listen",
            http,
        ]
    }

    /// Waits until the load balancer sends calls to the replica.
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

/// Starts workflows until `stop` is set. The only failure allowed is UNAVAILABLE.
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
async fn a_rolling_restart_fails_no_call() {
    let schema = Schema::create().await;
    let url = schema.url();
    let mut replicas = [Replica::start(&url), Replica::start(&url)];
    for replica in &replicas {
        replica.is_ready().await;
    }
    let balancer = Balancer::start(&replicas);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let callers = (0..8).map(|_| write(tenant_on(connect(balancer.port.address)), &stop, &done));
    let progress = async || {
        let before = done.load(Ordering::Relaxed);
        eventually("calls go on", async || {
            (done.load(Ordering::Relaxed) > before + 100).then_some(())
        })
        .await;
    };
    let restarts = async {
        for _ in 0..2 {
            for replica in &mut replicas {
                progress().await;
                replica.stop();
                progress().await;
                replica.restart(&url);
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
