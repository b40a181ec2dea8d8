//! A stream of WatchTransitions on bare HTTP/2. It decodes only what the benchmark checks.

use std::net::SocketAddr;

use bridgebook::proto::v1::{WatchTransitionsRequest, fsm_service_server::SERVICE_NAME};
use h2::{RecvStream, client::SendRequest};
use prost::{
    Message,
    bytes::{Buf, Bytes, BytesMut},
};
use tonic::Status;

use crate::{
    Result,
    call::{FRAME_HEADER, frame, send},
};

/// WatchTransitionsResponse, with the fields that the benchmark reads.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// The first message.
    #[prost(message, optional, tag = "1")]
    pub ready: Option<Marker>,
    /// Transitions.
    #[prost(message, optional, tag = "2")]
    pub transitions: Option<Rows>,
    /// How far the stream has come.
    #[prost(message, optional, tag = "3")]
    pub bookmark: Option<Marker>,
}

/// WatchReady or WatchBookmark.
#[derive(Clone, PartialEq, Message)]
pub struct Marker {
    /// The position.
    #[prost(bytes = "bytes", tag = "1")]
    pub position: Bytes,
}

/// WatchedTransitions.
#[derive(Clone, PartialEq, Message)]
pub struct Rows {
    /// The transitions.
    #[prost(message, repeated, tag = "1")]
    pub rows: Vec<Row>,
}

/// FsmTransition.
#[derive(Clone, PartialEq, Message)]
pub struct Row {
    /// The id of the transition.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// Its position in the journal.
    #[prost(bytes = "bytes", tag = "12")]
    pub position: Bytes,
}

/// What a stream returns.
pub enum Event {
    /// A message.
    Message(Response),
    /// The end.
    End(Status),
}

/// An open stream.
pub struct Stream {
    body: RecvStream,
    /// What was received of the next messages.
    received: BytesMut,
}

impl Stream {
    /// Opens a stream. Fails with its status if it ends with the headers.
    pub async fn open(
        connection: &SendRequest<Bytes>,
        address: SocketAddr,
        request: &WatchTransitionsRequest,
    ) -> Result<Self> {
        let uri = format!("http://{address}/{SERVICE_NAME}/WatchTransitions").parse()?;
        let response = send(connection, uri, None, frame(request)?).await?.await?;
        if let Some(status) = Status::from_header_map(response.headers()) {
            return Err(status.into());
        }
        Ok(Stream {
            body: response.into_body(),
            received: BytesMut::new(),
        })
    }

    /// Returns the next message, or the status at the end. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(message) = self.message() {
                return Ok(Event::Message(Response::decode(message)?));
            }
            let Some(data) = self.body.data().await else {
                let trailers = self.body.trailers().await?.unwrap_or_default();
                let status = Status::from_header_map(&trailers);
                return Ok(Event::End(status.ok_or("a stream has no grpc-status")?));
            };
            let data = data?;
            self.body.flow_control().release_capacity(data.len())?;
            self.received.extend_from_slice(&data);
        }
    }

    /// Returns the next message if it has been received.
    fn message(&mut self) -> Option<Bytes> {
        let (_, length) = self.received.get(..FRAME_HEADER)?.split_first()?;
        let length = u32::from_be_bytes(length.try_into().ok()?);
        let length = usize::try_from(length).ok()?;
        if self.received.len() < FRAME_HEADER + length {
            return None;
        }
        self.received.advance(FRAME_HEADER);
        let message = self.received.split_to(length).freeze();
        if self.received.is_empty() {
            // An idle stream keeps no buffer.
            self.received = BytesMut::new();
        }
        Some(message)
    }
}
