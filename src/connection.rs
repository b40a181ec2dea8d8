//! Connections of clients.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tonic::transport::server::Connected;

/// A connection that lets other tasks run before it writes.
///
/// A batch answers many calls of a connection at once, and each of them wakes the
/// task that writes. tokio runs a task that was just woken before those that were
/// waiting, so it would write after every single call, with a system call each.
/// Having stepped back once, it finds the answers of all of them.
pub struct Connection {
    stream: TcpStream,
    turn: Turn,
}

/// How far the task is that reads and writes. Each time it runs it reads first,
/// then writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It has nothing to write so far.
    Reads,
    /// It had, and has let others run.
    MayWrite,
    /// It has written.
    Wrote,
}

impl From<TcpStream> for Connection {
    fn from(stream: TcpStream) -> Self {
        Connection {
            stream,
            turn: Turn::Reads,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = <TcpStream as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turn == Turn::Wrote {
            self.turn = Turn::Reads;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

/// Not vectored: h2 then copies messages of up to a kilobyte into its buffer, and
/// writes many of them at once.
impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.turn == Turn::Reads {
            self.turn = Turn::MayWrite;
            // A task that wakes itself goes to the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.turn = Turn::Wrote;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
