//! Bounds what a connection can cost without making calls.
//!
//! Frames such as PING, SETTINGS, PRIORITY and tiny DATA, and streams that are reset at once, need
//! no credential, and a client can send millions of them per second. Each connection therefore has
//! budgets for them. Calls and responses refill these, because they are what clients send such frames
//! for: WINDOW_UPDATE for the bytes of a response, PING to measure the path of a call. A busy client
//! never exhausts them, at any rate of calls.
//!
//! A connection without budget for frames is closed. One without budget for resets is not read for a
//! moment: its client may be one whose calls reach their deadlines because the service is slow. It
//! would only connect again, and send the calls again.
//!
//! A connection is also closed if it does not complete its [headers](super::header_block), or if its
//! calls are [refused](super::refused_calls) too often.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{
    eviction::ConnectionSlot,
    frame_budgets::Budgets,
    frames::{Frames, PREFACE},
    header_block::PendingHeaders,
};

/// The type of a GOAWAY frame, and its error ENHANCE_YOUR_CALM (RFC 9113, sections 6.8 and 7).
const GOAWAY: u8 = 0x7;
const ENHANCE_YOUR_CALM: u8 = 0xb;

/// The reason for which a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flood {
    /// Frames that do no work.
    Frames,
    /// A block of headers that does not arrive completely in time.
    SlowHeaders,
    /// Too many connections of the client have incomplete headers.
    IncompleteHeaders,
    /// Calls without a valid credential.
    RefusedCalls,
}

impl Flood {
    /// Returns the debug data of GOAWAY, which is also the error of reading.
    fn debug_data(self) -> &'static str {
        match self {
            Flood::Frames => "too_many_frames",
            Flood::SlowHeaders => "headers_incomplete_for_too_long",
            Flood::IncompleteHeaders => "too_many_incomplete_headers",
            Flood::RefusedCalls => "too_many_refused_calls",
        }
    }
}

/// A stream that fails once its client floods it with frames, after a GOAWAY, and that is not read
/// for a moment after too many resets.
pub(super) struct Guarded<S> {
    stream: S,
    incoming: Frames,
    outgoing: Frames,
    budgets: Budgets,
    counted_at: Instant,
    headers: PendingHeaders,
    slot: Arc<ConnectionSlot>,
    /// Ends the time in which resets are paid for.
    pause: Option<Pin<Box<Sleep>>>,
    flood: Arc<OnceLock<Flood>>,
}

impl<S> Guarded<S> {
    /// Guards a connection that may have `streams` concurrent streams. Also returns what it is closed
    /// for, once it is.
    pub(super) fn new(
        stream: S,
        streams: u32,
        headers: PendingHeaders,
        slot: Arc<ConnectionSlot>,
    ) -> (Self, Arc<OnceLock<Flood>>) {
        let flood = Arc::default();
        let guarded = Guarded {
            stream,
            incoming: Frames::after(PREFACE),
            outgoing: Frames::after(0),
            budgets: Budgets::new(streams),
            counted_at: Instant::now(),
            headers,
            slot,
            pause: None,
            flood: Arc::clone(&flood),
        };
        (guarded, flood)
    }

    fn count(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        self.budgets.pass(now - self.counted_at);
        self.counted_at = now;
        let budgets = &mut self.budgets;
        self.incoming
            .read(bytes, |kind, stream| budgets.receive(kind, stream));
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    /// Tells the client why its connection is closed, if it can be told at once: a client that does
    /// not read the frames before cannot.
    fn send_goaway(&mut self, flood: Flood, context: &mut Context<'_>) {
        if !self.outgoing.is_between_frames() {
            return;
        }
        let debug = flood.debug_data().as_bytes();
        let length = u8::try_from(8 + debug.len()).unwrap_or(8);
        let mut frame = vec![0, 0, length, GOAWAY, 0, 0, 0, 0, 0];
        frame.extend(self.budgets.last_stream.to_be_bytes());
        frame.extend([0, 0, 0, ENHANCE_YOUR_CALM]);
        frame.extend(debug);
        let mut stream = Pin::new(&mut self.stream);
        if let Poll::Ready(Ok(_)) = stream.as_mut().poll_write(context, &frame) {
            let _ = stream.poll_flush(context);
        }
    }

    /// Closes the connection: tells the client why, once, and fails.
    fn close(&mut self, flood: Flood, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flood.set(flood).is_ok() {
            self.send_goaway(flood, context);
        }
        Poll::Ready(Err(io::Error::other(flood.debug_data())))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.slot.has_too_many_refused_calls() {
            return self.close(Flood::RefusedCalls, context);
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
            // The client was not read meanwhile.
            self.headers.restart();
        }
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) else {
            ready!(self.headers.poll_expired(context));
            return self.close(Flood::SlowHeaders, context);
        };
        read?;
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        self.count(bytes);
        if self.budgets.frames.debt().is_some() {
            return self.close(Flood::Frames, context);
        }
        let this = &mut *self;
        let block = this.incoming.header_block();
        if this.headers.expect(block, &this.slot).is_err() {
            return self.close(Flood::IncompleteHeaders, context);
        }
        let debt = self.budgets.resets.debt();
        self.pause = debt.map(|debt| Box::pin(sleep(debt)));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.budgets.send(written);
        let written_bytes = bytes.get(..written).unwrap_or_default();
        self.outgoing.read(written_bytes, |_, _| {});
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::rpc::transport::peer::Peer;

    const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
    const HEADER_BYTES: usize = 128 * 1024;

    fn guarded(stream: DuplexStream) -> (Guarded<DuplexStream>, Arc<OnceLock<Flood>>) {
        let headers = PendingHeaders::new(HEADER_BYTES, HEADER_TIMEOUT);
        let slot = &Peer::for_test(([127, 0, 0, 1], 7).into()).slot;
        Guarded::new(stream, 100, headers, Arc::clone(slot))
    }

    /// A client that resets each of its calls at once is read at the rate that its budget gains.
    #[tokio::test(start_paused = true)]
    async fn a_flood_of_resets_is_read_slowly() {
        let headers: &[u8] = &[0, 0, 0, 1, 4, 0, 0, 0, 1];
        let reset: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
        let mut bytes = vec![0; PREFACE];
        bytes.extend([headers, reset].concat().repeat(10_000));
        let (near, mut far) = duplex(1024);
        let sending = tokio::spawn(async move { far.write_all(&bytes).await });
        let (mut stream, flood) = guarded(near);
        let begun = Instant::now();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        sending.await.unwrap().unwrap();
        assert_eq!(flood.get(), None);
        // 5,000 calls remain to pay for, 800 are free, and each second pays for 400.
        assert_eq!(begun.elapsed().as_millis() / 100, 105);
    }

    #[tokio::test(start_paused = true)]
    async fn headers_have_a_deadline_until_they_are_complete() {
        let (near, mut far) = duplex(1024);
        let (mut stream, flood) = guarded(near);
        let begun = Instant::now();
        far.write_all(&[0; PREFACE]).await.unwrap();
        let block = |flags: u8| [0, 0, 1, 1, flags, 0, 0, 0, 1];
        far.write_all(&block(4)).await.unwrap();
        let mut received = vec![0; PREFACE + 9];
        stream.read_exact(&mut received).await.unwrap();
        tokio::time::advance(HEADER_TIMEOUT / 2).await;
        far.write_all(&[0]).await.unwrap();
        stream.read_exact(&mut received[..1]).await.unwrap();
        tokio::time::advance(HEADER_TIMEOUT).await;
        assert_eq!(flood.get(), None);
        far.write_all(&block(0)).await.unwrap();
        stream.read_to_end(&mut received).await.unwrap_err();
        assert_eq!(flood.get(), Some(&Flood::SlowHeaders));
        assert_eq!(begun.elapsed(), HEADER_TIMEOUT * 5 / 2);
    }
}
