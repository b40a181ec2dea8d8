//! Counts the completed workflows of a namespace, and all state changes of its workflows, each exactly
//! once: a reducer that follows the journal.
//!
//!     cargo run --example journal_reducer -- --namespace demo
//!
//! It is safe to kill, to run again, and to run several times at once, because it stores no position
//! itself:
//!
//! 1. It watches the journal after what its bridge has consumed.
//! 2. It reduces each message of the watch to a batch, and sends that with the position before it and
//!    the position of its last transition. The bridge stores totals and position in one transaction.
//! 3. If the bridge has another position, another process was faster. The batch is dropped, because its
//!    transitions are counted already, and the reducer goes on with step 1.
//!
//! Exit status: 0 after SIGTERM or Ctrl-C, 1 after an error that another attempt cannot mend.

use std::{process::ExitCode, time::Duration};

use bridgebook::{
    client::{
        Client,
        retry::{reason, with_retries},
        watch::{Event, Watch, oldest_position},
    },
    proto::v1::{
        AccumulateBridgeStateRequest, BridgeState, FsmTransition, UpsertBridgeStateRequest,
        WatchTransitionsRequest, watch_transitions_request::Begin,
    },
};
use clap::Parser;
use tonic::Status;
use uuid::Uuid;

mod service;
mod stop;

use service::{Service, exit_code};
use stop::Stop;

/// The root of derived ids. Every program has its own, so that ids never collide.
const ID_ROOT: Uuid = Uuid::from_u128(0x7c0a_5c0e_91d4_4a57_8b0f_62f3_54d1_0e9a);

/// Counts completed workflows from the journal, each exactly once, until SIGTERM.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    service: Service,
    /// Tenant whose workflows are counted.
    #[arg(long, default_value = "demo")]
    namespace: String,
    /// UUID of the bridge. Default: derived from the namespace, so that all reducers of it share a
    /// bridge.
    #[arg(long)]
    bridge_id: Option<Uuid>,
}

/// What transitions add up to.
#[derive(Debug, Default)]
struct Batch {
    completed: i64,
    changes: i64,
}

impl Batch {
    fn reduce(transitions: &[FsmTransition]) -> Self {
        let completed = transitions.iter().filter(|it| it.to_state == "COMPLETED");
        Batch {
            completed: completed.count() as i64,
            changes: transitions.len() as i64,
        }
    }
}

/// Why a watch came to its end.
enum End {
    /// A signal.
    Stopped,
    /// The bridge is at another position than the watch.
    Overtaken,
}

struct Reducer {
    client: Client,
    namespace: String,
    bridge_id: String,
}

impl Reducer {
    fn new(client: Client, arguments: &Arguments) -> Self {
        let name = format!("journal\n{}", arguments.namespace);
        let derived = Uuid::new_v5(&ID_ROOT, name.as_bytes());
        Reducer {
            client,
            namespace: arguments.namespace.clone(),
            bridge_id: arguments.bridge_id.unwrap_or(derived).to_string(),
        }
    }

    /// Returns the bridge. Creates it if it does not exist.
    async fn bridge(&self) -> Result<BridgeState, Status> {
        let request = UpsertBridgeStateRequest {
            namespace: self.namespace.clone(),
            bridge_id: self.bridge_id.clone(),
            current_fsm_state: "IDLE".into(),
            ..UpsertBridgeStateRequest::default()
        };
        let call = async || {
            let mut bridges = self.client.bridges();
            bridges.upsert_bridge_state(request.clone()).await
        };
        let response = with_retries(Duration::MAX, call).await?;
        Ok(response.bridge_state.unwrap_or_default())
    }

    /// Follows the journal after what the bridge has consumed.
    async fn consume(&self, stop: &mut Stop) -> Result<End, Status> {
        let mut consumed = self.bridge().await?.consumed_through;
        let mut watch = self.watch();
        let mut begin = String::new();
        loop {
            let event = tokio::select! {
                event = watch.next() => event?,
                () = stop.signalled() => return Ok(End::Stopped),
            };
            let (batch, through) = match event {
                Event::Ready => {
                    begin = watch.position().unwrap_or_default().to_owned();
                    continue;
                }
                Event::Interrupted(interruption) => {
                    println!("interrupted: {}", interruption.status.message());
                    continue;
                }
                // The watch asks for none.
                Event::Snapshot(_) => continue,
                Event::Transitions(transitions) => {
                    let last = transitions.last().map(|it| it.position.clone());
                    (Batch::reduce(&transitions), last.unwrap_or_default())
                }
                // Past transitions of other types, so that retention does not overtake the bridge.
                Event::Bookmark(position) => (Batch::default(), position),
            };
            if through <= consumed || through <= begin {
                continue;
            }
            if !self.add(&batch, &consumed, &through).await? {
                return Ok(End::Overtaken);
            }
            consumed = through;
        }
    }

    fn watch(&self) -> Watch {
        let request = WatchTransitionsRequest {
            namespace: self.namespace.clone(),
            entity_type: "workflow".into(),
            begin: Some(Begin::AfterBridge(self.bridge_id.clone())),
            ..WatchTransitionsRequest::default()
        };
        Watch::new(&self.client, request)
    }

    /// Adds a batch to the bridge. Returns false if the bridge has consumed something else meanwhile.
    async fn add(&self, batch: &Batch, from: &str, through: &str) -> Result<bool, Status> {
        let request = AccumulateBridgeStateRequest {
            namespace: self.namespace.clone(),
            bridge_id: self.bridge_id.clone(),
            workflows_processed: batch.completed,
            items_aggregated: batch.changes,
            consumed_from: from.to_owned(),
            consumed_through: through.to_owned(),
            ..AccumulateBridgeStateRequest::default()
        };
        let call = async || {
            let mut bridges = self.client.bridges();
            bridges.accumulate_bridge_state(request.clone()).await
        };
        let bridge = match with_retries(Duration::MAX, call).await {
            Ok(response) => response.bridge_state.unwrap_or_default(),
            // RESUME_POINT_GONE: the database was restored without the batch's transitions.
            Err(status) => match reason(&status).as_deref() {
                Some("STATE_CHANGED" | "RESUME_POINT_GONE") => return Ok(false),
                _ => return Err(status),
            },
        };
        if batch.changes > 0 {
            println!(
                "counted {} completed workflows, {} state changes",
                bridge.total_workflows_processed, bridge.total_items_aggregated
            );
        }
        Ok(true)
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut stop = Stop::new()?;
    let client = arguments.service.client()?;
    let reducer = Reducer::new(client, &arguments);
    println!("consuming for the bridge {}", reducer.bridge_id);
    loop {
        match reducer.consume(&mut stop).await {
            Ok(End::Stopped) => break,
            Ok(End::Overtaken) => println!("another process was faster"),
            Err(status) => {
                if oldest_position(&status).is_some() {
                    println!(
                        "the totals are too low: transitions were removed before they were counted"
                    );
                }
                return Err(status.into());
            }
        }
    }
    println!("stopped");
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    exit_code("journal_reducer", run(Arguments::parse()).await)
}
