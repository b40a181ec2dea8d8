//! The load generator: callers, each of which calls again when it has its answer.
//!
//! It speaks gRPC on bare HTTP/2 and looks into few answers, because what it
//! takes it takes from the server: pgbench does not look at its rows at all.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use h2::client::{ResponseFuture, SendRequest};
use prost::{
    Message,
    bytes::{BufMut, Bytes, BytesMut},
};
use tokio::{net::TcpStream, task::JoinSet};
use tonic::{Code, Status};

use crate::{Result, measured::Measured, options::Window, scenario::Call};

/// How many callers share an HTTP/2 connection, as the threads of one client
/// program would.
const CALLERS_PER_CONNECTION: usize = 32;

/// Every so many calls of a caller the answer is checked; the status always is.
const CHECK_EVERY: usize = 50;

/// What a connection and a stream may send without being asked for more: far
/// more than an answer, so that windows need no updates.
const WINDOW: u32 = 16 * 1024 * 1024;

/// The bytes before a gRPC message: whether it is compressed, and its length.
const PREFIX: usize = 5;

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

async fn connect(address: SocketAddr) -> Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(stream)
        .await?;
    // It ends with the last client.
    tokio::spawn(connection);
    Ok(client)
}

struct Caller<C> {
    scenario: Arc<C>,
    connection: SendRequest<Bytes>,
    uri: http::Uri,
}

impl<C: Call> Caller<C> {
    /// Calls until the time is over; answers how long those calls took that
    /// ended in the time that counts.
    async fn call_again(mut self, from: Instant, until: Instant) -> Result<Vec<Duration>> {
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

    async fn call(&mut self) -> Result<Bytes> {
        let message = self.scenario.request();
        let length = message.encoded_len();
        let mut body = BytesMut::with_capacity(PREFIX + length);
        body.put_u8(0);
        body.put_u32(u32::try_from(length)?);
        message.encode(&mut body)?;
        let request = http::Request::post(self.uri.clone())
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut connection = self.connection.clone().ready().await?;
        let (answer, mut stream) = connection.send_request(request, false)?;
        stream.send_data(body.freeze(), true)?;
        receive(answer).await
    }
}

/// Receives an answer, and fails with its status if that is not OK.
async fn receive(answer: ResponseFuture) -> Result<Bytes> {
    let answer = answer.await?;
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return Err(status.into());
    }
    let mut stream = answer.into_body();
    let mut body = BytesMut::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    match Status::from_header_map(&trailers) {
        Some(status) if status.code() == Code::Ok && body.len() >= PREFIX => {
            Ok(body.split_off(PREFIX).freeze())
        }
        Some(status) => Err(status.into()),
        None => Err("an answer without a status".into()),
    }
}
