//! A minimal gRPC client on bare HTTP/2. The load generator shares the machine with the
//! server, so every cycle that the client saves is left to the server.

use std::net::SocketAddr;

use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderValue, header::AUTHORIZATION};
use prost::{
    Message,
    bytes::{BufMut, Bytes, BytesMut},
};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::Result;

/// The flow-control window of a connection and of a stream: far larger than any response,
/// so that no window needs an update.
const WINDOW: u32 = 16 * 1024 * 1024;

/// The length of a gRPC frame header: the compression flag and the message length.
pub const FRAME_HEADER: usize = 5;

/// Opens a connection, which many callers may share.
pub async fn connect(address: SocketAddr) -> Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(stream)
        .await?;
    // The task ends when the last client is dropped.
    tokio::spawn(connection);
    Ok(client)
}

/// Encodes a message with its gRPC frame header.
pub fn frame(message: &impl Message) -> Result<Bytes> {
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(FRAME_HEADER + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length)?);
    message.encode(&mut body)?;
    Ok(body.freeze())
}

/// Calls a method with a framed message and, if given, a credential. Fails with the
/// response's status unless it is OK.
pub async fn call(
    connection: &SendRequest<Bytes>,
    uri: http::Uri,
    credential: Option<&HeaderValue>,
    message: Bytes,
) -> Result<Bytes> {
    receive(send(connection, uri, credential, message).await?).await
}

/// Sends a framed message to a method. Returns the response that is to come.
pub async fn send(
    connection: &SendRequest<Bytes>,
    uri: http::Uri,
    credential: Option<&HeaderValue>,
    message: Bytes,
) -> Result<ResponseFuture> {
    let mut request = http::Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    if let Some(credential) = credential {
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, credential.clone());
    }
    let mut connection = connection.clone().ready().await?;
    let (response, mut stream) = connection.send_request(request, false)?;
    stream.send_data(message, true)?;
    Ok(response)
}

/// Receives a response. Fails with its status unless it is OK.
async fn receive(response: ResponseFuture) -> Result<Bytes> {
    let response = response.await?;
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Err(status.into());
    }
    let mut stream = response.into_body();
    let mut body = BytesMut::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    match Status::from_header_map(&trailers) {
        Some(status) if status.code() == Code::Ok && body.len() >= FRAME_HEADER => {
            Ok(body.split_off(FRAME_HEADER).freeze())
        }
        Some(status) => Err(status.into()),
        None => Err("the response has no grpc-status".into()),
    }
}
