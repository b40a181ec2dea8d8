//! The load generator: callers, each of which calls again when it has its answer.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bridgebook::proto::v1::workflow_service_client::WorkflowServiceClient;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::{Result, measured::Measured, options::Window, scenario::Scenario};

/// A client on a channel that it may share.
pub type Client = WorkflowServiceClient<Channel>;

/// How many callers share an HTTP/2 connection, as the threads of one client
/// program would.
const CALLERS_PER_CHANNEL: usize = 32;

/// Measures `scenario` with so many callers at `address`.
pub async fn measure<S: Scenario>(
    scenario: &Arc<S>,
    address: SocketAddr,
    callers: usize,
    window: Window,
) -> Result<Measured> {
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..callers.div_ceil(CALLERS_PER_CHANNEL) {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        clients.push(Client::new(endpoint.connect().await?));
    }
    let from = Instant::now() + window.warm_up;
    let mut tasks = JoinSet::new();
    for client in clients.iter().cycle().take(callers) {
        let call = call_again(
            Arc::clone(scenario),
            client.clone(),
            from,
            from + window.counted,
        );
        tasks.spawn(call);
    }
    let mut latencies = Vec::new();
    while let Some(caller) = tasks.join_next().await {
        latencies.extend(caller??);
    }
    Measured::new(latencies, S::ROWS_PER_CALL, window)
        .ok_or_else(|| format!("{}: no call ended in time", S::TITLE).into())
}

/// Calls until the time is over; answers how long those calls took that ended
/// in the time that counts.
async fn call_again<S: Scenario>(
    scenario: Arc<S>,
    mut client: Client,
    from: Instant,
    until: Instant,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut begun = Instant::now();
    while begun < until {
        scenario.call(&mut client).await?;
        let ended = Instant::now();
        if ended >= from && ended < until {
            latencies.push(ended - begun);
        }
        begun = ended;
    }
    Ok(latencies)
}
