//! Calls with raw bytes.

use std::net::SocketAddr;

use bridgebook::proto::Rpc;
use http::uri::PathAndQuery;
use prost::{
    Message,
    bytes::{Buf, BufMut},
};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

use super::send_part;

/// Calls `package.Service/Method` with the bytes of a message.
pub async fn raw_call(
    channel: &Channel,
    method: &str,
    message: Vec<u8>,
) -> Result<Vec<u8>, Status> {
    raw_call_as(channel, None, method, message).await
}

/// Calls a method with a credential.
pub async fn raw_call_as(
    channel: &Channel,
    credential: Option<&str>,
    method: &str,
    message: Vec<u8>,
) -> Result<Vec<u8>, Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("the service is there");
    let path = format!("/{method}").parse().expect("a path");
    let mut request = Request::new(message);
    if let Some(credential) = credential {
        let header = format!("Bearer {credential}").parse().expect("a header");
        request.metadata_mut().insert("authorization", header);
    }
    let path: PathAndQuery = path;
    if Rpc::from_path(path.as_str()).is_some_and(Rpc::is_stream) {
        // The first message; the stream has no end.
        let stream = client.server_streaming(request, path, Bytes).await?;
        return Ok(stream.into_inner().message().await?.unwrap_or_default());
    }
    let answer = client.unary(request, path, Bytes).await?;
    Ok(answer.into_inner())
}

/// Calls a method with a `grpc-timeout` that only the server enforces. tonic's client would
/// enforce it too and not wait for the server's answer.
pub async fn call_with_timeout(
    address: SocketAddr,
    method: &str,
    message: &impl Message,
    timeout: &str,
) -> Result<(), Status> {
    let stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("it listens");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{address}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(())
        .expect("a request");
    let (answer, mut body) = client.send_request(request, false).expect("it is sent");
    let message = message.encode_to_vec();
    // The flag "not compressed", and the length.
    let mut frame = vec![0];
    frame.extend(
        u32::try_from(message.len())
            .expect("a short message")
            .to_be_bytes(),
    );
    frame.extend(message);
    send_part(&mut body, frame, true);
    let answer = answer.await.expect("an answer");
    connection.abort();
    match Status::from_header_map(answer.headers()) {
        Some(status) => Err(status),
        None => Ok(()),
    }
}

#[derive(Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Bytes;
    type Decoder = Bytes;

    fn encoder(&mut self) -> Bytes {
        Bytes
    }

    fn decoder(&mut self) -> Bytes {
        Bytes
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
