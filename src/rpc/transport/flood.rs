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
//! calls are [refused](super::refused_calls) too often. In the latter case other calls may be in
//! progress, so it is not read any more, and closed a moment later.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{
    backpressure::Throttled,
    eviction::ConnectionSlot,
    frame_budgets::Budgets,
    frames::{Frames, PREFACE},
    goaway::CloseReason,
    header_block::PendingHeaders,
};

/// How long the calls in progress on a connection with too many refused calls have for their responses.
/// Far longer than an unknown token takes to be refused, or a known one to be let in.
const CLOSE_DELAY: Duration = Duration::from_millis(500);

/// A stream that fails once its client floods it with frames, after a GOAWAY, and that is not read
/// for a moment after too many resets.
pub(super) struct Guarded<S> {
    stream: Throttled<S>,
    incoming: Frames,
    outgoing: Frames,
    budgets: Budgets,
    counted_at: Instant,
    headers: PendingHeaders,
    slot: Arc<ConnectionSlot>,
    /// Ends the time in which resets are paid for.
    pause: Option<Pin<Box<Sleep>>>,
    /// Ends the time in which calls in progress get their responses.
    closing: Option<Pin<Box<Sleep>>>,
    reason: Arc<OnceLock<CloseReason>>,
}

impl<S> Guarded<S> {
    /// Guards a connection that may have `streams` concurrent streams. Also returns what it is closed
    /// for, once it is.
    pub(super) fn new(
        stream: Throttled<S>,
        streams: u32,
        headers: PendingHeaders,
        slot: Arc<ConnectionSlot>,
    ) -> (Self, Arc<OnceLock<CloseReason>>) {
        let reason = Arc::default();
        let guarded = Guarded {
            stream,
            incoming: Frames::after(PREFACE),
            outgoing: Frames::after(0),
            budgets: Budgets::new(streams),
            counted_at: Instant::now(),
            headers,
            slot,
            pause: None,
            closing: None,
            reason: Arc::clone(&reason),
        };
        (guarded, reason)
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

impl<S: AsyncRead + AsyncWrite + Unpin> Guarded<S> {
    /// Tells the client why its connection is closed, if it can be told at once: a client that does
    /// not read the frames before cannot. Returns false if only a part could be sent, which nothing may
    /// follow.
    fn send_goaway(&mut self, reason: CloseReason, context: &mut Context<'_>) -> bool {
        if !self.outgoing.is_between_frames() {
            return true;
        }
        let frame = reason.goaway(self.budgets.last_stream);
        let mut stream = Pin::new(&mut self.stream);
        match stream.as_mut().poll_write(context, &frame) {
            Poll::Ready(Ok(sent)) => {
                let _ = stream.poll_flush(context);
                sent == frame.len()
            }
            Poll::Ready(Err(_)) | Poll::Pending => true,
        }
    }

    /// Closes the connection: tells the client why, once, and fails.
    fn close(&mut self, reason: CloseReason, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reason.set(reason).is_ok() {
            self.send_goaway(reason, context);
        }
        Poll::Ready(Err(io::Error::other(reason.debug_data())))
    }

    /// Tells the client that the connection is closed, and closes it a moment later. Nothing is read
    /// meanwhile, but responses are written.
    fn poll_close(
        &mut self,
        reason: CloseReason,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reason.set(reason).is_ok() && !self.send_goaway(reason, context) {
            return self.close(reason, context);
        }
        let closing = &mut self.closing;
        let delay = closing.get_or_insert_with(|| Box::pin(sleep(CLOSE_DELAY)));
        ready!(delay.as_mut().poll(context));
        self.close(reason, context)
    }

    /// Waits for the client, which has to complete its headers in time. While the service does not read
    /// the connection, that time does not pass.
    fn poll_headers(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stream.is_paused() {
            self.headers.pause();
            return Poll::Pending;
        }
        ready!(self.headers.poll_expired(context));
        self.close(CloseReason::SlowHeaders, context)
    }

    /// Reads the connection slowly while its budget of resets is exhausted.
    fn pause_for_resets(&mut self) {
        if let Some(debt) = self.budgets.resets.debt() {
            self.slot.metrics().paused_for_resets.inc();
            self.headers.pause();
            self.stream.load().pause_until(Instant::now() + debt);
            self.pause = Some(Box::pin(sleep(debt)));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_some() || this.slot.has_too_many_refused_calls() {
            return this.poll_close(CloseReason::RefusedCalls, context);
        }
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(context));
            this.pause = None;
        }
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, buffer) else {
            return this.poll_headers(context);
        };
        read?;
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        this.count(bytes);
        if this.budgets.frames.debt().is_some() {
            return this.close(CloseReason::Frames, context);
        }
        let (block, number) = (this.incoming.header_block(), this.incoming.header_blocks());
        if this.headers.expect(block, number, &this.slot).is_err() {
            return this.close(CloseReason::IncompleteHeaders, context);
        }
        this.pause_for_resets();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
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
    use std::pin::pin;

    use prometheus::IntCounter;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::timeout,
    };

    use super::*;
    use crate::rpc::transport::{
        backpressure::{ConnectionLoad, InWork, Load, in_rounds},
        peer::Peer,
    };

    const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
    const HEADER_BYTES: usize = 128 * 1024;

    /// A connection that the server reads.
    struct Connection {
        stream: Guarded<DuplexStream>,
        load: Arc<ConnectionLoad>,
        reason: Arc<OnceLock<CloseReason>>,
        far: DuplexStream,
    }

    impl Connection {
        /// Makes a connection after its preface. The client can send `buffer` bytes that are not read.
        async fn new(buffer: usize) -> Self {
            let (near, mut far) = duplex(buffer);
            let peer = Peer::for_test(([127, 0, 0, 1], 7).into());
            let pauses = IntCounter::new("pauses", "Pauses.").unwrap();
            let headers = PendingHeaders::new(HEADER_BYTES, HEADER_TIMEOUT);
            let load = ConnectionLoad::new(&Load::new(64), [127, 0, 0, 1].into());
            let stream = Throttled::new(near, Arc::clone(&load), pauses);
            let (stream, reason) = Guarded::new(stream, 100, headers, Arc::clone(&peer.slot));
            far.write_all(&[0; PREFACE]).await.unwrap();
            let mut connection = Connection {
                stream,
                load,
                reason,
                far,
            };
            connection.read(PREFACE).await.unwrap();
            connection
        }

        async fn send(&mut self, bytes: &[u8]) {
            self.far.write_all(bytes).await.unwrap();
        }

        /// Reads `count` bytes, 1 KiB at a time.
        async fn read(&mut self, mut count: usize) -> io::Result<()> {
            let mut buffer = [0; 1024];
            while count > 0 {
                let reading = self.stream.read(&mut buffer[..count.min(1024)]);
                let read = in_rounds(pin!(reading), &self.load).await?;
                assert!(read > 0, "the stream has ended");
                count -= read;
            }
            Ok(())
        }

        /// Reads what the server has written so far.
        async fn receive(&mut self) -> Vec<u8> {
            let mut buffer = vec![0; 1024];
            let count = self.far.read(&mut buffer).await.unwrap();
            buffer.truncate(count);
            buffer
        }

        /// Waits for bytes that do not arrive.
        async fn wait(&mut self, time: Duration) {
            timeout(time, self.read(1)).await.unwrap_err();
        }

        /// Begins calls until no slot is free.
        fn overload(&self) -> Vec<Arc<InWork>> {
            (0..100).map(|_| self.load.begin()).collect()
        }
    }

    /// Returns the head of a block that is a single frame of this length.
    fn block(length: u8) -> [u8; 9] {
        [0, 0, length, 1, 4, 0, 0, 0, 1]
    }

    /// A client that resets each of its calls at once is read at the rate that its budget gains.
    #[tokio::test(start_paused = true)]
    async fn a_flood_of_resets_is_read_slowly() {
        const RESET: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
        let bytes = [&block(0), RESET].concat().repeat(10_000);
        let mut connection = Connection::new(bytes.len()).await;
        connection.send(&bytes).await;
        let begun = Instant::now();
        connection.read(bytes.len()).await.unwrap();
        assert_eq!(connection.reason.get(), None);
        // 5,000 calls remain to pay for, 800 are free, and each second pays for 400.
        let seconds = begun.elapsed().as_secs_f64();
        assert!((10.4..10.6).contains(&seconds), "{seconds}");
        let metrics = connection.stream.slot.metrics();
        assert!(metrics.paused_for_resets.get() > 10);
        assert!(connection.load.unread_until() > Some(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn headers_have_a_deadline_until_they_are_complete() {
        let mut connection = Connection::new(1024).await;
        let begun = Instant::now();
        connection.send(&block(1)).await;
        connection.read(9).await.unwrap();
        connection.wait(HEADER_TIMEOUT / 2).await;
        connection.send(&[0]).await;
        connection.read(1).await.unwrap();
        connection.wait(HEADER_TIMEOUT).await;
        assert_eq!(connection.reason.get(), None);
        connection.send(&block(1)).await;
        connection.read(10).await.unwrap_err();
        assert_eq!(connection.reason.get(), Some(&CloseReason::SlowHeaders));
        assert_eq!(begun.elapsed(), HEADER_TIMEOUT * 5 / 2);
    }

    /// A busy connection may always have headers that are not complete.
    #[tokio::test(start_paused = true)]
    async fn each_block_of_headers_has_a_deadline_of_its_own() {
        let mut connection = Connection::new(1024).await;
        connection.send(&block(1)).await;
        connection.read(9).await.unwrap();
        for _ in 0..5 {
            connection.wait(HEADER_TIMEOUT * 2 / 3).await;
            // The end of one block and the begin of the next arrive together.
            let next = [&[0], block(1).as_slice()].concat();
            connection.send(&next).await;
            connection.read(next.len()).await.unwrap();
        }
        assert_eq!(connection.reason.get(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_a_connection_is_not_read_does_not_count_for_its_headers() {
        let mut connection = Connection::new(1 << 18).await;
        // 1 KiB is read in each pause of 100 ms.
        let length: [u8; 4] = u32::to_be_bytes(200 << 10);
        connection
            .send(&[&length[1..], &[1, 4, 0, 0, 0, 1]].concat())
            .await;
        connection.read(9).await.unwrap();
        let calls = connection.overload();
        let begun = Instant::now();
        connection.send(&vec![0; 199 << 10]).await;
        connection.read(199 << 10).await.unwrap();
        assert!(begun.elapsed() > HEADER_TIMEOUT, "it was not paused");
        drop(calls);
        let begun = Instant::now();
        connection.read(1).await.unwrap_err();
        assert_eq!(connection.reason.get(), Some(&CloseReason::SlowHeaders));
        assert!(begun.elapsed() <= HEADER_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_too_many_refused_calls_still_gets_its_responses() {
        let mut connection = Connection::new(1024).await;
        connection.send(&[block(0), block(0)].concat()).await;
        connection.read(9).await.unwrap();
        for _ in 0..300 {
            connection.stream.slot.count_refused_call();
        }
        // The second call is not read.
        connection.wait(CLOSE_DELAY / 2).await;
        assert_eq!(
            connection.receive().await,
            CloseReason::RefusedCalls.goaway(1)
        );
        let response = [0, 0, 0, 1, 5, 0, 0, 0, 1];
        connection.stream.write_all(&response).await.unwrap();
        assert_eq!(connection.receive().await, response);
        let begun = Instant::now();
        connection.read(1).await.unwrap_err();
        assert_eq!(connection.reason.get(), Some(&CloseReason::RefusedCalls));
        assert_eq!(begun.elapsed(), CLOSE_DELAY / 2);
    }
}
