//! A gRPC client that sends any bytes. tonic's client refuses invalid ones.

use std::net::SocketAddr;

use bridgebook::proto::Rpc;
use h2::{RecvStream, client::SendRequest};
use http::HeaderMap;
use prost::bytes::Bytes;
use tonic::{Code, Status};

use crate::support::send_part;

/// The flow-control window for responses.
const WINDOW: u32 = 16 * 1024 * 1024;

/// The deadline of a stream, which does not end by itself: long enough for its first message.
const STREAM_TIMEOUT: &str = "200m";

/// A connection.
#[derive(Clone)]
pub struct Wire {
    address: SocketAddr,
    requests: SendRequest<Bytes>,
}

/// A response, or an error.
#[derive(Debug)]
pub struct Answer {
    pub code: Code,
    pub text: String,
    /// The details of the status.
    pub details: Vec<u8>,
    pub message: Vec<u8>,
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Wire {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let (requests, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Wire { address, requests }
    }

    /// Calls an RPC with a body in these pieces. Returns an error only if the connection
    /// fails, because the service must answer every call. A stream that lasts until its deadline
    /// is OK, and the answer has its first message.
    pub async fn call(&self, rpc: Rpc, pieces: Vec<Bytes>) -> Result<Answer, h2::Error> {
        let mut request = http::Request::post(format!("http://{}{}", self.address, rpc.path()))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if rpc.is_stream() {
            request = request.header("grpc-timeout", STREAM_TIMEOUT);
        }
        let request = request.body(()).unwrap();
        let mut requests = self.requests.clone().ready().await?;
        let (answer, mut body) = requests.send_request(request, false)?;
        // h2 closes a connection after a hundred empty frames.
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            send_part(&mut body, piece, false);
        }
        send_part(&mut body, Bytes::new(), true);
        let (head, body) = answer.await?.into_parts();
        let (message, trailers) = read(body).await?;
        let answer = Answer::new(&trailers.unwrap_or(head.headers), &message);
        let has_lasted = rpc.is_stream() && answer.code == Code::DeadlineExceeded;
        Ok(if has_lasted { answer.ok() } else { answer })
    }
}

async fn read(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut message = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        message.extend(piece);
    }
    Ok((message, body.trailers().await?))
}

impl Answer {
    fn new(headers: &HeaderMap, messages: &[u8]) -> Answer {
        // gRPC defines the code as UNKNOWN if a response lacks a status.
        let status = Status::from_header_map(headers);
        let status = status.unwrap_or_else(|| Status::unknown("no grpc-status"));
        Answer {
            code: status.code(),
            text: status.message().to_owned(),
            details: status.details().to_vec(),
            message: first(messages).unwrap_or_default().to_vec(),
        }
    }

    fn ok(self) -> Answer {
        Answer {
            code: Code::Ok,
            details: Vec::new(),
            ..self
        }
    }
}

/// Returns the first message of a body, without its flag and its length.
fn first(messages: &[u8]) -> Option<&[u8]> {
    let (length, rest) = messages.get(1..)?.split_first_chunk()?;
    rest.get(..u32::from_be_bytes(*length) as usize)
}
