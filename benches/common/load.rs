//! The load generator: a closed loop of callers, each of which waits for its response before
//! it calls again.
//!
//! It speaks gRPC on bare HTTP/2 and decodes few responses, because every cycle it takes is
//! taken from the server. pgbench does not decode its rows at all.

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
    measured::{Measured, Window},
};

/// An RPC with its requests.
pub trait Call: Send + Sync + 'static {
    /// The request message.
    type Request: Message;
    /// The response message.
    type Response: Message + Default;
    /// The service's name, with its package.
    const SERVICE: &'static str;
    /// The RPC's name.
    const METHOD: &'static str;
    /// The title in the table.
    const TITLE: &'static str;
    /// How many rows a call counts as.
    const ROWS_PER_CALL: u32 = 1;

    /// Returns the next request.
    fn request(&self) -> Self::Request;

    /// Fails unless the response is as expected.
    fn check(&self, response: Self::Response) -> Result<()>;
}

/// How many callers share an HTTP/2 connection, as the threads of one client program would.
const CALLERS_PER_CONNECTION: usize = 32;

/// A caller checks one response in this many. It checks every status.
const CHECK_EVERY: usize = 50;

/// The service under load.
#[derive(Debug, Clone)]
pub struct Target {
    /// The address of the service.
    pub address: SocketAddr,
    /// The credential of a token, if the service requires one.
    pub credential: Option<String>,
}

/// A service that requires no token.
impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Target {
            address,
            credential: None,
        }
    }
}

/// Measures a call with the given number of concurrent callers.
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
        tasks.spawn(caller.run(from, from + window.counted));
    }
    let mut latencies = Vec::new();
    while let Some(caller) = tasks.join_next().await {
        latencies.extend(caller??);
    }
    Measured::new(latencies, C::ROWS_PER_CALL, window)
        .ok_or_else(|| format!("{}: no call completed within the window", C::TITLE).into())
}

struct Caller<C> {
    scenario: Arc<C>,
    connection: SendRequest<Bytes>,
    credential: Option<HeaderValue>,
    uri: http::Uri,
}

impl<C: Call> Caller<C> {
    /// Calls until `until`. Returns the latencies of the calls that completed from `from` on.
    async fn run(self, from: Instant, until: Instant) -> Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        let mut begun = Instant::now();
        for number in 0.. {
            if begun >= until {
                break;
            }
            let response = self.call().await?;
            let ended = Instant::now();
            if ended >= from && ended < until {
                latencies.push(ended - begun);
            }
            if number % CHECK_EVERY == 0 {
                self.scenario.check(C::Response::decode(response)?)?;
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
