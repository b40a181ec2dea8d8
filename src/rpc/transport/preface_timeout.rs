//! Clients that connect and say nothing.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
    time::sleep,
};

/// How long a client has to greet us, as long as for TLS.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many bytes a client sends in any case: the preface of HTTP/2 (RFC 9113, 3.4) and
/// an empty SETTINGS frame.
const PREFACE_BYTES: usize = 24 + 9;

/// A connection that notices when the client has greeted us.
pub(super) struct PrefaceReader<S> {
    stream: S,
    /// How many bytes are missing, and who wants to know when there are none.
    missing: usize,
    done: Option<oneshot::Sender<()>>,
}

/// Whether the client has greeted us.
pub(super) struct Preface(oneshot::Receiver<()>);

impl<S> PrefaceReader<S> {
    pub(super) fn new(stream: S) -> (Self, Preface) {
        let (done, preface) = oneshot::channel();
        let stream = PrefaceReader {
            stream,
            missing: PREFACE_BYTES,
            done: Some(done),
        };
        (stream, Preface(preface))
    }
}

impl Preface {
    /// Ends if the client has not greeted us in time, and never if it has.
    pub(super) async fn fails(self) {
        tokio::select! {
            Ok(()) = self.0 => std::future::pending().await,
            () = sleep(PREFACE_TIMEOUT) => {}
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PrefaceReader<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.done.is_some() {
            let came = buffer.filled().len() - before;
            self.missing = self.missing.saturating_sub(came);
        }
        if self.missing == 0
            && let Some(done) = self.done.take()
        {
            // Who wanted to know may have gone.
            let _ = done.send(());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PrefaceReader<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
