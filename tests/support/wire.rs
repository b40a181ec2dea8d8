//! HTTP/2 connections that behave unlike a gRPC client.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use h2::{
    SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use prost::{Message, bytes::Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};

/// The default window of HTTP/2.
pub const ANY_WINDOW: u32 = 65_535;

/// The largest window of HTTP/2.
const MAX_WINDOW: u32 = (1 << 31) - 1;

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

    /// Connects with the largest windows, and never reads from the socket.
    pub async fn connect_mute(address: SocketAddr) -> Wire {
        let stream = WriteOnly(TcpStream::connect(address).await.unwrap());
        let mut builder = Builder::new();
        builder
            .initial_window_size(MAX_WINDOW)
            .initial_connection_window_size(MAX_WINDOW);
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
    pub async fn begin(&self, head: http::Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
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
        send_part(&mut body, frame, true);
        answer
    }
}

/// Sends a part of the body of a call. The service may have answered already, and then reads no
/// more of it.
pub fn send_part(body: &mut SendStream<Bytes>, part: impl Into<Bytes>, is_last: bool) {
    let _ = body.send_data(part.into(), is_last);
}

/// A stream that is not read.
struct WriteOnly(TcpStream);

impl AsyncRead for WriteOnly {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for WriteOnly {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
