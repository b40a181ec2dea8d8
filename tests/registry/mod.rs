//! RegistryService, one file per RPC, and its sweeper.

mod batch_heartbeat;
mod deregister_node;
mod discover_nodes;
mod get_node;
mod heartbeat;
mod list_nodes;
mod register_node;
mod sweeper;

use bridgebook::proto::v1::{
    GetNodeRequest, HeartbeatRequest, HeartbeatResponse, Node, NodeHeartbeat, RegisterNodeRequest,
    RegisterNodeResponse, registry_service_client::RegistryServiceClient,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use tonic::{Status, transport::Channel};

use crate::support::{App, Tenant, count, eventually};

fn client(tenant: &Tenant) -> RegistryServiceClient<Channel> {
    RegistryServiceClient::new(tenant.channel.clone())
}

/// Returns a request to register a node.
fn new_node(tenant: &Tenant, node_id: &str) -> RegisterNodeRequest {
    RegisterNodeRequest {
        namespace: tenant.namespace.clone(),
        node_id: node_id.into(),
        node_type: "reducer".into(),
        node_version: "1.0.0".into(),
        ..RegisterNodeRequest::default()
    }
}

async fn try_register(
    tenant: &Tenant,
    request: RegisterNodeRequest,
) -> Result<RegisterNodeResponse, Status> {
    let answer = client(tenant).register_node(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Registers a new node.
async fn register_as(tenant: &Tenant, request: RegisterNodeRequest) -> Node {
    let answer = try_register(tenant, request).await.expect("it registers");
    assert!(answer.created);
    answer.node.expect("a node")
}

pub async fn register(tenant: &Tenant, node_id: &str) -> Node {
    register_as(tenant, new_node(tenant, node_id)).await
}

async fn get(tenant: &Tenant, node_id: &str) -> Result<Node, Status> {
    let request = GetNodeRequest {
        namespace: tenant.namespace.clone(),
        node_id: node_id.into(),
    };
    let answer = client(tenant).get_node(request).await?;
    Ok(answer.into_inner().node.expect("a node"))
}

/// Returns a heartbeat without health and metadata.
fn plain(node_id: &str) -> NodeHeartbeat {
    NodeHeartbeat {
        node_id: node_id.into(),
        ..NodeHeartbeat::default()
    }
}

async fn beat(tenant: &Tenant, heartbeat: NodeHeartbeat) -> Result<HeartbeatResponse, Status> {
    let request = HeartbeatRequest {
        namespace: tenant.namespace.clone(),
        heartbeat: Some(heartbeat),
    };
    let answer = client(tenant).heartbeat(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Moves the last heartbeat of nodes into the past by some seconds.
async fn silence(app: &App, node_ids: &[&str], seconds: u32) {
    let ids = node_ids.join("', '");
    let sql = format!(
        "UPDATE node_registrations SET last_heartbeat = last_heartbeat - interval '{seconds} s'
          WHERE node_id IN ('{ids}')"
    );
    execute(app, &sql).await;
}

async fn execute(app: &App, sql: &str) {
    let mut connection = app.schema.connect().await;
    connection.batch_execute(sql).await.unwrap();
}

/// Returns the journal of a node in order, as `from>to event`.
async fn journal(app: &App, node: &Node) -> Vec<String> {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Text)]
        text: String,
    }
    let query = diesel::sql_query(format!(
        "SELECT coalesce(from_state, '') || '>' || to_state || ' ' || transition_event AS text
           FROM fsm_transitions
          WHERE entity_id = '{}' AND entity_type = 'node' AND namespace = 'bridgebook.registry'
          ORDER BY seq",
        node.entity_id
    ));
    let mut connection = app.schema.connect().await;
    let rows: Vec<Row> = query.load(&mut connection).await.unwrap();
    rows.into_iter().map(|row| row.text).collect()
}

/// An uncommitted change of another replica.
struct Pending(AsyncPgConnection);

impl Pending {
    async fn begin(app: &App, change: &str) -> Pending {
        let mut connection = app.schema.connect().await;
        let begin = format!("BEGIN; {change}");
        connection.batch_execute(&begin).await.unwrap();
        Pending(connection)
    }

    async fn until_waited_for(&mut self, app: &App) {
        let pid = count(&mut self.0, "SELECT pg_backend_pid()").await;
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE {pid} = ANY (pg_blocking_pids(pid))"
        );
        eventually("somebody waits for the row", || async {
            (app.schema.count(&waiting).await > 0).then_some(())
        })
        .await;
    }

    async fn commit(mut self) {
        self.0.batch_execute("COMMIT").await.unwrap();
    }

    async fn commit_when_waited_for(mut self, app: &App) {
        self.until_waited_for(app).await;
        self.commit().await;
    }
}
