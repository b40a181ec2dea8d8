//! A bridge node in small: registers itself, sends heartbeats, and deregisters
//! when it is told to stop.
//!
//!     cargo run --example registry_node -- --node-id registry-1
//!
//! It outlives the service: while that is away it tries again, and registers anew
//! as soon as it is back. It prints one line for whatever happens, and exits with
//! 0 after SIGTERM or Ctrl-C, with 1 if the service refuses it.

use std::{process::ExitCode, time::Duration};

use bridgebook::{
    client::{
        self, Client,
        retry::{Retries, reason, with_retries},
    },
    proto::v1::{
        DeregisterNodeRequest, HeartbeatRequest, NodeHealth, NodeHeartbeat, RegisterNodeRequest,
    },
};
use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tonic::{Code, Status};

/// How long deregistering is tried: whoever stops us waits. If it can't be done,
/// the registry notices our silence.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait after a failure that nobody foresaw.
const ODD_PAUSE: Duration = Duration::from_secs(2);

/// When the next heartbeat is due if the service does not say: often enough for
/// the shortest TTL.
const DEFAULT_PAUSE: Duration = Duration::from_millis(300);

/// Registers itself with bridgebook and sends heartbeats until SIGTERM.
#[derive(Debug, Parser)]
struct Arguments {
    /// Host and port of bridgebook, after https:// where it has TLS.
    #[arg(long, env = "BRIDGEBOOK_ADDRESS", default_value = "localhost:50051")]
    address: String,
    /// The credential of a token, if bridgebook asks for one.
    #[arg(long, env = "BRIDGEBOOK_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The tenant that the node belongs to.
    #[arg(long, default_value = "demo")]
    namespace: String,
    /// The node's own name, the same after a restart.
    #[arg(long, default_value = "registry-1")]
    node_id: String,
    /// What kind of node it is.
    #[arg(long, default_value = "registry")]
    node_type: String,
    /// For how many seconds after a heartbeat it counts as alive.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i64).range(1..=86400))]
    ttl: i64,
}

/// The node, as bridgebook sees it.
struct Node {
    client: Client,
    arguments: Arguments,
}

impl Node {
    /// Registers, and answers whether it is new and when the first heartbeat is due.
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
        let answer = self.client.registry().register_node(request).await?;
        let answer = answer.into_inner();
        Ok((answer.created, due(answer.next_heartbeat_in)))
    }

    /// Sends a heartbeat, and answers when the next one is due.
    async fn heartbeat(&self) -> Result<Duration, Status> {
        let request = HeartbeatRequest {
            namespace: self.arguments.namespace.clone(),
            heartbeat: Some(NodeHeartbeat {
                node_id: self.arguments.node_id.clone(),
                ..NodeHeartbeat::default()
            }),
        };
        let answer = self.client.registry().heartbeat(request).await?;
        Ok(due(answer.into_inner().next_heartbeat_in))
    }

    /// Says goodbye.
    async fn deregister(&self) -> Result<(), Status> {
        let request = DeregisterNodeRequest {
            namespace: self.arguments.namespace.clone(),
            node_id: self.arguments.node_id.clone(),
            // Whoever removed it already did the same.
            allow_missing: true,
        };
        let call = async || {
            let mut registry = self.client.registry();
            registry.deregister_node(request.clone()).await
        };
        with_retries(GOODBYE_PATIENCE, call).await.map(drop)
    }

    /// Stays registered until it is told to stop. Between any two calls there is
    /// a pause, and only a pause is cut short: a call that was cut short might
    /// still be done, after the goodbye.
    async fn live(&self, stop: &mut Stop) -> Result<(), Status> {
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
                    // Registering counts as a heartbeat and is right whatever was
                    // lost meanwhile, so it is the way back from any failure.
                    is_registered = false;
                    self.recover(status, &mut retries)?
                }
            };
            if stop.within(pause).await {
                return Ok(());
            }
        }
    }

    /// After a failure: how long to wait before registering, or the failure, if it is for good.
    fn recover(&self, status: Status, retries: &mut Retries) -> Result<Duration, Status> {
        if reason(&status).as_deref() == Some("NODE_NOT_FOUND") {
            println!("not registered any more");
            return Ok(Duration::ZERO);
        }
        // The name is another's, or the request is no good: no time mends that. A node
        // that ends because of anything else would make a small trouble a large one.
        if matches!(status.code(), Code::AlreadyExists | Code::InvalidArgument) {
            return Err(status);
        }
        println!(
            "bridgebook is away ({:?}): {}",
            status.code(),
            status.message()
        );
        Ok(retries.pause_after(&status).unwrap_or(ODD_PAUSE))
    }
}

fn due(answer: Option<prost_types::Duration>) -> Duration {
    let due = answer.and_then(|due| Duration::try_from(due).ok());
    due.unwrap_or(DEFAULT_PAUSE)
}

/// SIGTERM and SIGINT. One that comes while nobody waits is not lost.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Stop {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits this long, and answers whether it is time to stop.
    async fn within(&mut self, pause: Duration) -> bool {
        tokio::select! {
            // First the signals: a node that keeps failing at once hears them too.
            biased;
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            () = tokio::time::sleep(pause) => false,
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut stop = Stop::new()?;
    let channel = client::endpoint(&arguments.address)?.connect_lazy();
    let client = match &arguments.token {
        Some(token) => Client::with_token(channel, token)?,
        None => Client::new(channel),
    };
    let node = Node { client, arguments };
    node.live(&mut stop).await?;
    node.deregister().await?;
    println!("deregistered");
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "registry_node: {}",
                bridgebook::util::error_chain::error_chain(error.as_ref())
            );
            ExitCode::FAILURE
        }
    }
}
