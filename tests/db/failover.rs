//! Failover to a standby.

use std::{
    fs::DirBuilder,
    net::SocketAddr,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use bridgebook::{
    embedded::Embedded,
    proto::v1::{ListWorkflowsRequest, StartWorkflowRequest},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, UnixStream},
    sync::watch,
};
use tonic::Code;

use crate::support::{
    Failure, Server, Tenant, connect_database, count, eventually, failure, own_cluster, temp_dir,
    tenant_on,
};

/// A proxy that can switch to another server.
struct Switch {
    address: SocketAddr,
    target: Arc<Mutex<PathBuf>>,
    /// Changes when the connections to the previous server are closed.
    cut: watch::Sender<()>,
}

impl Switch {
    async fn to(cluster: &Embedded) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(socket(cluster)));
        let (cut, _) = watch::channel(());
        let (behind, cuts) = (target.clone(), cut.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (socket, mut cut) = (behind.lock().unwrap().clone(), cuts.subscribe());
                tokio::spawn(async move {
                    let mut server = UnixStream::connect(socket).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Switch {
            address,
            target,
            cut,
        }
    }

    fn turn_to(&self, cluster: &Embedded) {
        *self.target.lock().unwrap() = socket(cluster);
        self.cut.send_replace(());
    }
}

fn socket(cluster: &Embedded) -> PathBuf {
    let name = format!(".s.PGSQL.{}", cluster.port());
    cluster.socket_dir().join(name)
}

/// Copies a running cluster into a directory, to start there as its standby.
fn back_up(cluster: &Embedded, from: &Path, to: &Path) {
    let owner = std::fs::metadata(from.join("cluster")).unwrap();
    let copy = to.join("cluster");
    std::fs::create_dir(to).unwrap();
    DirBuilder::new().mode(0o700).create(&copy).unwrap();
    std::os::unix::fs::chown(&copy, Some(owner.uid()), Some(owner.gid())).unwrap();
    let status = Command::new(cluster.bin_dir().join("pg_basebackup"))
        .arg("-h")
        .arg(cluster.socket_dir())
        .args(["-p", &cluster.port().to_string(), "-U", cluster.user()])
        .args(["--checkpoint=fast", "--write-recovery-conf", "-D"])
        .arg(&copy)
        .uid(owner.uid())
        .gid(owner.gid())
        .current_dir("/")
        .status();
    assert!(status.unwrap().success());
}

async fn start(tenant: &Tenant, request: &StartWorkflowRequest) -> Result<(), tonic::Status> {
    let request = request.clone();
    let answer = tenant.client.clone().start_workflow(request).await;
    answer.map(drop)
}

async fn list(tenant: &Tenant) -> Result<usize, tonic::Status> {
    let request = ListWorkflowsRequest {
        namespace: tenant.namespace.clone(),
        ..ListWorkflowsRequest::default()
    };
    let answer = tenant.client.clone().list_workflows(request).await?;
    Ok(answer.into_inner().workflows.len())
}

#[tokio::test]
async fn a_standby_is_used_only_after_its_promotion() {
    let (dir, standby_dir) = (temp_dir(), temp_dir());
    let primary = own_cluster(&dir).await;
    let switch = Switch::to(&primary).await;
    let (user, database) = (primary.user(), primary.database());
    let url = format!("postgres://{user}@{}/{database}", switch.address);
    let server = Server::spawn(&["--database-url", &url, "--migrate"]);
    let tenant = tenant_on(server.serving().await);
    start(&tenant, &tenant.new_workflow()).await.unwrap();
    back_up(&primary, &dir.0, &standby_dir.0);
    let standby = own_cluster(&standby_dir).await;
    start(&tenant, &tenant.new_workflow()).await.unwrap();
    let copied = standby.database_url();
    eventually("the standby has everything", || async {
        let mut copied = connect_database(&copied).await;
        let workflows = count(&mut copied, "SELECT count(*) FROM workflow_executions").await;
        (workflows == 2).then_some(())
    })
    .await;

    switch.turn_to(&standby);
    let away = Failure::new(Code::Unavailable, "DATABASE_UNAVAILABLE");
    let request = tenant.new_workflow();
    assert_eq!(failure(start(&tenant, &request).await), away);
    // The standby is not read from either, because it may lag behind.
    assert_eq!(failure(list(&tenant).await), away);

    let mut copied = connect_database(&copied).await;
    count(&mut copied, "SELECT pg_promote()::INT").await;
    eventually("workflows start again", || async {
        start(&tenant, &request).await.ok()
    })
    .await;
    assert_eq!(list(&tenant).await.unwrap(), 3);
}
