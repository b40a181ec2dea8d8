//! Connections that speak HTTP/2 as no client of gRPC would.

use std::net::SocketAddr;

use h2::client::{Builder, ResponseFuture, SendRequest};
use prost::{Message, bytes::Bytes};
use tokio::{net::TcpStream, task::JoinHandle};

/// As HTTP/2 has it if nobody says otherwise.
pub const ANY_WINDOW: u32 = 65_535;

/// A connection that speaks HTTP/2 as it likes.
pub struct Wire {
    pub address: SocketAddr,
    pub sender: SendRequest<Bytes>,
    /// How it ends.
    pub ended: JoinHandle<Result<(), h2::Error>>,
}

impl Wire {
    /// Connects. Of each answer it takes so many bytes before somebody has read them.
    pub async fn connect(address: SocketAddr, window: u32) -> Wire {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut builder = Builder::new();
        builder.initial_window_size(window);
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        Wire {
            address,
            sender,
            ended: tokio::spawn(connection),
        }
    }

    /// The head of a call: `package.Service/Method`.
    pub fn head(&self, method: &str) -> http::Request<()> {
        http::Request::post(format!("http://{}/{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap()
    }

    /// Sends the head of a call, and nothing more until what is answered is used.
    pub async fn begin(&self, head: http::Request<()>) -> (ResponseFuture, h2::SendStream<Bytes>) {
        let mut ready = self.sender.clone().ready().await.unwrap();
        ready.send_request(head, false).unwrap()
    }

    /// Sends a call, whose answer nobody has to read.
    pub async fn send(&self, method: &str, message: &impl Message) -> ResponseFuture {
        let (answer, mut body) = self.begin(self.head(method)).await;
        let message = message.encode_to_vec();
        let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        frame.extend(message);
        body.send_data(frame.into(), true).unwrap();
        answer
    }
}
