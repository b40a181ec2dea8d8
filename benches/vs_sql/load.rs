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
use http::HeaderValue;
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

/// Whom callers call, and what they show.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where the service is.
    pub address: SocketAddr,
    /// The credential of a token, where one is asked for.
    pub credential: Option<String>,
}

/// Where nobody is asked for a token.
impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Target {
            address,
            credential: None,
        }
    }
}

/// Measures a call with so many callers of `target`.
pub async fn measure<C: Call>(
    scenario: &Arc<C>,
    target: &Target,
    callers: usize,
    window: Window,
) -> Result<Measured> {
    let address = target.address;
    let credential = target.credential.as_ref();
    let credential = credential.map(|it| format!("Bearer {it}").parse());
    let credential: Option<HeaderValue> = credential.transpose()?;
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
            credential: credential.clone(),
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
    credential: Option<HeaderValue>,
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
        let credential = self.credential.as_ref();
        call(&self.connection, self.uri.clone(), credential, message).await
    }
}
