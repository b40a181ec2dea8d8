//! The load generators: a closed loop of callers, and an open loop at a given rate.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use h2::client::SendRequest;
use prost::bytes::Bytes;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    Result,
    call::{call, connect},
    requests::Request,
};

/// How many callers share a connection.
const CALLERS_PER_CONNECTION: usize = 32;

/// How many calls a connection of the open loop may have open. A client that has more sheds
/// them itself.
const MAX_OPEN: usize = 1000;

/// The interval at which the open loop sends.
const TICK: Duration = Duration::from_millis(1);

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Ok,
    /// RESOURCE_EXHAUSTED with RetryInfo.
    Rejected,
    /// Anything else.
    Other,
}

/// A call that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub end: End,
    pub latency: Duration,
}

/// Makes requests.
pub type Requests = Arc<dyn Fn() -> Result<Request> + Send + Sync>;

/// Runs callers, each of which waits for its response before it calls again.
pub async fn closed(
    address: SocketAddr,
    callers: usize,
    requests: Requests,
    window: Duration,
) -> Result<Vec<Ended>> {
    let mut connections = Vec::new();
    for _ in 0..callers.div_ceil(CALLERS_PER_CONNECTION) {
        connections.push(connect(address).await?);
    }
    let until = Instant::now() + window;
    let mut tasks: JoinSet<Result<Vec<Ended>>> = JoinSet::new();
    for connection in connections.iter().cycle().take(callers) {
        let (connection, requests) = (connection.clone(), Arc::clone(&requests));
        tasks.spawn(async move {
            let mut ended = Vec::new();
            while Instant::now() < until {
                ended.push(one(&connection, requests()?).await);
            }
            Ok(ended)
        });
    }
    let mut all = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        all.extend(ended??);
    }
    Ok(all)
}

/// Sends `per_second` calls over `connections`, however many responses are missing. Returns the
/// calls that ended within the window.
pub async fn open(
    address: SocketAddr,
    connections: usize,
    per_second: f64,
    requests: Requests,
    window: Duration,
) -> Result<Vec<Ended>> {
    let begun = Instant::now();
    let rate = per_second / connections as f64;
    let mut tasks: JoinSet<Result<Vec<Ended>>> = JoinSet::new();
    for _ in 0..connections {
        let (connection, requests) = (connect(address).await?, Arc::clone(&requests));
        tasks.spawn(async move {
            let open = Arc::new(AtomicUsize::new(0));
            let mut calls = JoinSet::new();
            let mut due = 0.0;
            let mut ended = Vec::new();
            while begun.elapsed() < window {
                tokio::time::sleep(TICK).await;
                let now = begun.elapsed().as_secs_f64() * rate;
                while due < now {
                    due += 1.0;
                    if open.load(Ordering::Relaxed) < MAX_OPEN {
                        open.fetch_add(1, Ordering::Relaxed);
                        let (connection, open) = (connection.clone(), Arc::clone(&open));
                        let request = requests()?;
                        calls.spawn(async move {
                            let ended = one(&connection, request).await;
                            open.fetch_sub(1, Ordering::Relaxed);
                            ended
                        });
                    }
                }
                while let Some(call) = calls.try_join_next() {
                    ended.push(call?);
                }
            }
            Ok(ended)
        });
    }
    let mut all = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        all.extend(ended??);
    }
    Ok(all)
}

/// Makes one call.
pub async fn one(connection: &SendRequest<Bytes>, request: Request) -> Ended {
    let begun = Instant::now();
    let end = match call(connection, request.uri, None, request.message).await {
        Ok(_) => End::Ok,
        Err(error) => match error.downcast_ref::<Status>() {
            Some(status) if is_rejection(status) => End::Rejected,
            _ => End::Other,
        },
    };
    Ended {
        end,
        latency: begun.elapsed(),
    }
}

fn is_rejection(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && status.get_details_retry_info().is_some()
}

/// Returns the number of calls that ended in a way.
pub fn count(ended: &[Ended], end: End) -> usize {
    ended.iter().filter(|it| it.end == end).count()
}

/// Returns a percentile of the latencies of the calls that ended in a way; zero if there are none.
pub fn percentile(ended: &[Ended], end: End, percent: usize) -> Duration {
    let latencies = ended.iter().filter(|it| it.end == end);
    let mut latencies: Vec<Duration> = latencies.map(|it| it.latency).collect();
    latencies.sort_unstable();
    let index = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
    latencies.get(index).copied().unwrap_or_default()
}

/// Returns the median of values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
