//! The Rust bridge node: it stays registered across restarts of the service.

use std::process::Command;

use bridgebook::{client::Client, proto::v1::GetNodeRequest};
use diesel_async::SimpleAsyncConnection;
use tonic::{Code, Status};

use crate::support::{App, Node, Schema, Server, failure, new_id, rust_example};

/// Starts a node with a TTL of 3 s, so that a heartbeat is due every second.
fn spawn(address: &str, node_id: &str) -> Node {
    let mut command = Command::new(rust_example("registry_node"));
    command.args(["--address", address, "--node-id", node_id, "--ttl", "3"]);
    Node::spawn(command)
}

async fn get(client: &Client, node_id: &str) -> Result<(), Status> {
    let request = GetNodeRequest {
        namespace: "anybody".into(),
        node_id: node_id.into(),
    };
    client.registry().get_node(request).await.map(drop)
}

#[tokio::test]
async fn a_node_reregisters_when_needed_and_deregisters_on_sigterm() {
    let schema = Schema::create().await;
    let url = schema.url();
    let arguments = ["--database-url", url.as_str(), "--migrate"];
    let mut server = Server::spawn(&arguments);
    server.serving().await;
    let node_id = new_id();
    let mut node = spawn(&server.address.to_string(), &node_id);
    node.prints("heartbeat ok", 1).await;

    server.kill();
    node.prints("bridgebook is unavailable", 1).await;
    server = Server::spawn_on(server.address, &arguments);
    node.prints("registered again", 1).await;
    node.prints("heartbeat ok", 2).await;

    let mut database = schema.connect().await;
    database
        .batch_execute("DELETE FROM node_registrations")
        .await
        .unwrap();
    node.prints("no longer registered", 1).await;
    node.prints("registered again", 2).await;
    let client = Client::new(server.channel());
    get(&client, &node_id).await.unwrap();

    assert!(node.terminate().await.success(), "{}", node.printed());
    assert!(node.printed().ends_with("deregistered\n"));
    let gone = failure(get(&client, &node_id).await);
    assert_eq!(
        (gone.code, gone.reason.as_str()),
        (Code::NotFound, "NODE_NOT_FOUND")
    );
}

#[tokio::test]
async fn a_refused_node_prints_the_reason_and_exits() {
    let app = App::start().await;
    let mut node = spawn(&app.address.to_string(), " bad node id");
    let status = node.ends().await;
    assert_eq!(status.code(), Some(1));
    assert!(node.printed().contains("node_id"), "{}", node.printed());
}
