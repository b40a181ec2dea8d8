//! The load generator: callers, each of which calls again when it has its answer.
//!
//! It speaks gRPC on bare HTTP/2 and looks into few answers, because what it
//! takes it takes from the server: pgbench does not look at its rows at all.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use h2::client::SendRequest;
use prost::{Message, bytes::Bytes};
use tokio::task::JoinSet;

use crate::{
    Result,
    call::{call, connect, frame},
    measured::Measured,
    options::Window,
    scenario::Call,
};

/// How many callers share an HTTP/2 connection, as the threads of one client
/// program would.
const CALLERS_PER_CONNECTION: usize = 32;

/// Every so many calls of a caller the answer is checked; the status always is.
const CHECK_EVERY: usize = 50;

/// Measures a call with so many callers at `address`.
pub async fn measure<C: Call>(
    scenario: &Arc<C>,
    address: SocketAddr,
    callers: usize,
    window: Window,
) -> Result<Measured> {
    let mut connections = Vec::new();
    for _ in 0..callers.div_ceil(CALLERS_PER_CONNECTION) {
        connections.push(connect(address).await?);
    }
    let from = Instant::now() + window.warm_up;
    let mut tasks = JoinSet::new();
    for connection in connections.iter().cycle().take(callers) {
        let caller = Caller {
            scenario: Arc::clone(scenario),
            connection: connection.clone(),
            uri: format!("http://{address}/{}/{}", C::SERVICE, C::METHOD).parse()?,
        };
        tasks.spawn(caller.call_again(from, from + window.counted));
    }
    let mut latencies = Vec::new();
    while let Some(caller) = tasks.join_next().await {
        latencies.extend(caller??);
    }
    Measured::new(latencies, C::ROWS_PER_CALL, window)
        .ok_or_else(|| format!("{}: no call ended in time", C::TITLE).into())
}

struct Caller<C> {
    scenario: Arc<C>,
    connection: SendRequest<Bytes>,
    uri: http::Uri,
}

impl<C: Call> Caller<C> {
    /// Calls until the time is over; answers how long those calls took that
    /// ended in the time that counts.
    async fn call_again(self, from: Instant, until: Instant) -> Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        let mut begun = Instant::now();
        for number in 0.. {
            if begun >= until {
                break;
            }
            let answer = self.call().await?;
            let ended = Instant::now();
            if ended >= from && ended < until {
                latencies.push(ended - begun);
            }
            if number % CHECK_EVERY == 0 {
                self.scenario.check(C::Answer::decode(answer)?)?;
            }
            begun = ended;
        }
        Ok(latencies)
    }

    async fn call(&self) -> Result<Bytes> {
        let message = frame(&self.scenario.request())?;
        call(&self.connection, self.uri.clone(), message).await
    }
}
