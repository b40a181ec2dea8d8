//! A minimal bridge node: registers itself, sends heartbeats, and deregisters on SIGTERM.
//!
//!     cargo run --example registry_node -- --node-id registry-1
//!
//! It survives an outage of the service: it retries, and registers again when the service is
//! back. It prints one line per event. Exit status: 0 after SIGTERM or Ctrl-C, 1 if the service
//! rejects it.

use std::{process::ExitCode, time::Duration};

use bridgebook::{
    client::{
        Client,
        retry::{Retries, reason, with_retries},
    },
    proto::v1::{
        DeregisterNodeRequest, HeartbeatRequest, NodeHealth, NodeHeartbeat, RegisterNodeRequest,
    },
};
use clap::Parser;
use tonic::{Code, Status};

mod service;
mod stop;

use service::{Service, exit_code};
use stop::Stop;

/// The retry limit for deregistration: short, because a supervisor waits for the exit. If it
/// fails, the registry marks the node stale after its TTL.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after an error that is not known to be temporary.
const UNKNOWN_ERROR_PAUSE: Duration = Duration::from_secs(2);

/// The heartbeat interval if the service returns none: short enough for the shortest TTL.
const DEFAULT_PAUSE: Duration = Duration::from_millis(300);

/// Registers itself with bridgebook and sends heartbeats until SIGTERM.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    service: Service,
    /// Tenant that the node belongs to.
    #[arg(long, default_value = "demo")]
    namespace: String,
    /// Name of the node, stable across restarts.
    #[arg(long, default_value = "registry-1")]
    node_id: String,
    /// Type of the node.
    #[arg(long, default_value = "registry")]
    node_type: String,
    /// How long the node counts as alive after a heartbeat, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i64).range(1..=86400))]
    ttl: i64,
}

/// The node.
struct Node {
    client: Client,
    arguments: Arguments,
}

impl Node {
    /// Registers the node. Returns whether it is new, and the time until the first heartbeat.
    async fn register(&self) -> Result<(bool, Duration), Status> {
        let request = RegisterNodeRequest {
            namespace: self.arguments.namespace.clone(),
            node_id: self.arguments.node_id.clone(),
            node_type: self.arguments.node_type.clone(),
            node_version: env!("CARGO_PKG_VERSION").into(),
            health_status: NodeHealth::Healthy.into(),
            heartbeat_ttl: Some(prost_types::Duration {
                seconds: self.arguments.ttl,
                nanos: 0,
            }),
            ..RegisterNodeRequest::default()
        };
        let response = self.client.registry().register_node(request).await?;
        let response = response.into_inner();
        Ok((response.created, due(response.next_heartbeat_in)))
    }

    /// Sends a heartbeat. Returns the time until the next one.
    async fn heartbeat(&self) -> Result<Duration, Status> {
        let request = HeartbeatRequest {
            namespace: self.arguments.namespace.clone(),
            heartbeat: Some(NodeHeartbeat {
                node_id: self.arguments.node_id.clone(),
                ..NodeHeartbeat::default()
            }),
        };
        let response = self.client.registry().heartbeat(request).await?;
        Ok(due(response.into_inner().next_heartbeat_in))
    }

    /// Deregisters the node.
    async fn deregister(&self) -> Result<(), Status> {
        let request = DeregisterNodeRequest {
            namespace: self.arguments.namespace.clone(),
            node_id: self.arguments.node_id.clone(),
            // A node that is already removed is not an error.
            allow_missing: true,
        };
        let call = async || {
            let mut registry = self.client.registry();
            registry.deregister_node(request.clone()).await
        };
        with_retries(DEREGISTER_TIMEOUT, call).await.map(drop)
    }

    /// Keeps the node registered until a stop signal. A signal interrupts only the pauses between
    /// calls. An interrupted call might still take effect, after the deregistration.
    async fn run(&self, stop: &mut Stop) -> Result<(), Status> {
        let id = &self.arguments.node_id;
        let mut is_registered = false;
        let mut registrations = 0;
        let mut retries = Retries::new(Duration::MAX);
        loop {
            let outcome = match is_registered {
                true => self.heartbeat().await.inspect(|_| println!("heartbeat ok")),
                false => self.register().await.map(|(created, due)| {
                    registrations += 1;
                    let again = if registrations > 1 { " again" } else { "" };
                    println!("registered{again} as {id} (created: {created})");
                    due
                }),
            };
            let pause = match outcome {
                Ok(due) => {
                    is_registered = true;
                    retries = Retries::new(Duration::MAX);
                    due
                }
                Err(status) => {
                    // A registration counts as a heartbeat and is correct even if the registry
                    // lost the node, so it recovers from any failure.
                    is_registered = false;
                    self.recover(status, &mut retries)?
                }
            };
            if is_stopped_within(pause, stop).await {
                return Ok(());
            }
        }
    }

    /// Returns the pause before the next registration, or the error if it is permanent.
    fn recover(&self, status: Status, retries: &mut Retries) -> Result<Duration, Status> {
        if reason(&status).as_deref() == Some("NODE_NOT_FOUND") {
            println!("no longer registered");
            return Ok(Duration::ZERO);
        }
        // Retrying cannot help if the name is taken or the request is invalid. Exiting on any
        // other error would turn a small outage into a larger one.
        if matches!(status.code(), Code::AlreadyExists | Code::InvalidArgument) {
            return Err(status);
        }
        println!(
            "bridgebook is unavailable ({:?}): {}",
            status.code(),
            status.message()
        );
        Ok(retries.pause_after(&status).unwrap_or(UNKNOWN_ERROR_PAUSE))
    }
}

fn due(interval: Option<prost_types::Duration>) -> Duration {
    let due = interval.and_then(|due| Duration::try_from(due).ok());
    due.unwrap_or(DEFAULT_PAUSE)
}

/// Waits for the pause. Returns true at once when a signal arrives.
async fn is_stopped_within(pause: Duration, stop: &mut Stop) -> bool {
    tokio::select! {
        // Signals come first, so that a node with a pause of zero still stops.
        biased;
        () = stop.signalled() => true,
        () = tokio::time::sleep(pause) => false,
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut stop = Stop::new()?;
    let client = arguments.service.client()?;
    let node = Node { client, arguments };
    node.run(&mut stop).await?;
    node.deregister().await?;
    println!("deregistered");
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    exit_code("registry_node", run(Arguments::parse()).await)
}
