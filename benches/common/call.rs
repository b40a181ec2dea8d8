//! One gRPC call on bare HTTP/2, with as little work for the caller as can be:
//! what it takes it takes from the server.

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

/// What a connection and a stream may send without being asked for more: far
/// more than an answer, so that windows need no updates.
const WINDOW: u32 = 16 * 1024 * 1024;

/// The bytes before a gRPC message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Makes a connection, which many callers may share.
pub async fn connect(address: SocketAddr) -> Result<SendRequest<Bytes>> {
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

/// Writes a message as it is sent.
pub fn frame(message: &impl Message) -> Result<Bytes> {
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(PREFIX + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length)?);
    message.encode(&mut body)?;
    Ok(body.freeze())
}

/// Calls a method with a message in its frame, and shows a credential, if there is
/// one; fails with the status of the answer if that is not OK.
pub async fn call(
    connection: &SendRequest<Bytes>,
    uri: http::Uri,
    credential: Option<&HeaderValue>,
    message: Bytes,
) -> Result<Bytes> {
    let mut request = http::Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    if let Some(credential) = credential {
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, credential.clone());
    }
    let mut connection = connection.clone().ready().await?;
    let (answer, mut stream) = connection.send_request(request, false)?;
    stream.send_data(message, true)?;
    receive(answer).await
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
