//! HTTP/2 connections that behave unlike a gRPC client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use h2::client::{Builder, ResponseFuture, SendRequest};
use prost::{Message, bytes::Bytes};
use tokio::{net::TcpSocket, task::JoinHandle};

/// The default window of HTTP/2.
pub const ANY_WINDOW: u32 = 65_535;

/// An HTTP/2 connection under the control of the test.
pub struct Wire {
    pub address: SocketAddr,
    pub sender: SendRequest<Bytes>,
    /// The task of the connection, with its result.
    pub ended: JoinHandle<Result<(), h2::Error>>,
}

impl Wire {
    /// Connects with this flow-control window for each response.
    pub async fn connect(address: SocketAddr, window: u32) -> Wire {
        Wire::connect_from(Ipv4Addr::LOCALHOST, address, window).await
    }

    /// Connects from one of the addresses of this machine, such as 127.0.0.2.
    pub async fn connect_from(source: impl Into<IpAddr>, address: SocketAddr, window: u32) -> Wire {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source.into(), 0).into()).unwrap();
        let stream = socket.connect(address).await.unwrap();
        let mut builder = Builder::new();
        builder.initial_window_size(window);
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        Wire {
            address,
            sender,
            ended: tokio::spawn(connection),
        }
    }

    /// Returns the headers of a call to `package.Service/Method`.
    pub fn head(&self, method: &str) -> http::Request<()> {
        http::Request::post(format!("http://{}/{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap()
    }

    /// Sends the headers of a call. The caller sends the body by the returned stream.
    pub async fn begin(&self, head: http::Request<()>) -> (ResponseFuture, h2::SendStream<Bytes>) {
        let mut ready = self.sender.clone().ready().await.unwrap();
        ready.send_request(head, false).unwrap()
    }

    /// Sends a call. Its response may stay unread.
    pub async fn send(&self, method: &str, message: &impl Message) -> ResponseFuture {
        self.send_with(self.head(method), message).await
    }

    /// Sends a call with these headers.
    pub async fn send_with(
        &self,
        head: http::Request<()>,
        message: &impl Message,
    ) -> ResponseFuture {
        let (answer, mut body) = self.begin(head).await;
        let message = message.encode_to_vec();
        let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        frame.extend(message);
        body.send_data(frame.into(), true).unwrap();
        answer
    }
}
