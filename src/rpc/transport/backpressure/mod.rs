//! Backpressure: while the service is busy, a connection is read only as fast as its calls end.
//!
//! A rejected call costs a large part of one that succeeds, so a service that only rejects does
//! little else under overload. A client whose bytes are not read waits instead: its calls stay in
//! its own queue, and cost the service nothing.
//!
//! All calls in work share a number of slots ([`Load`]). A call is in work until its response is
//! ready, but not while it waits for its client: for the rest of a request, or until a response is
//! read. The owners with calls in work have equal shares of the slots, and so have the connections
//! of an owner.
//!
//! A connection is polled in rounds. In each round it is read as far as the slots suffice for the
//! calls that these bytes probably contain. HTTP/2 reads all that it can get before the first of
//! these calls begins, so the next bytes have to wait for the next round.

mod load;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::poll_fn;
use prometheus::IntCounter;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take},
    time::{Instant, Sleep, sleep},
};

pub use self::load::{ConnectionLoad, InWork, Load};

/// The size of a call before it is known, and its bounds, in bytes.
const FIRST_CALL_BYTES: u64 = 256;
const MIN_CALL_BYTES: u64 = 64;
const MAX_CALL_BYTES: u64 = 64 * 1024;

/// How long a connection waits at most before a little is read: frames that cancel calls, that answer
/// a keepalive, or that let a response go on. The little contains calls, too, so each further
/// connection that has calls in work adds to the pause, up to the longest.
const PAUSE_PER_CONNECTION: Duration = Duration::from_millis(10);
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The number of bytes to read after a pause.
const LITTLE: u64 = 1024;

/// Polls a connection in rounds.
pub(super) async fn in_rounds<F: Future>(
    mut connection: Pin<&mut F>,
    load: &ConnectionLoad,
) -> F::Output {
    poll_fn(|context| {
        load.begin_round();
        connection.as_mut().poll(context)
    })
    .await
}

/// A stream that is read only as far as the share of its connection allows.
pub(super) struct Throttled<S> {
    stream: Take<S>,
    load: Arc<ConnectionLoad>,
    /// Counts the pauses.
    pauses: IntCounter,
    /// The size of a call, in bytes, as the last rounds have shown.
    call_bytes: u64,
    round: Round,
    /// Ends a pause.
    pause: Option<Pin<Box<Sleep>>>,
    is_paused: bool,
}

/// The bytes of a round.
#[derive(Default)]
struct Round {
    number: u64,
    /// The number of calls that had begun before.
    begun: u64,
    /// How many bytes may be read; `None` until the first are.
    allowance: Option<u64>,
    /// How many bytes of them have been read.
    read: u64,
}

impl Round {
    /// Returns how many bytes may still be read, if that is known.
    fn left(&self) -> Option<u64> {
        self.allowance.map(|allowance| allowance - self.read)
    }
}

impl<S: AsyncRead> Throttled<S> {
    /// Throttles a connection by its load. Counts its pauses.
    pub(super) fn new(stream: S, load: Arc<ConnectionLoad>, pauses: IntCounter) -> Self {
        Throttled {
            stream: stream.take(u64::MAX),
            load,
            pauses,
            call_bytes: FIRST_CALL_BYTES,
            round: Round::default(),
            pause: None,
            is_paused: false,
        }
    }

    /// Returns whether the stream, which was polled and had nothing to read, waits for the service and
    /// not for the client.
    pub(super) fn is_paused(&self) -> bool {
        self.is_paused || self.round.left() == Some(0)
    }

    /// Returns the load of the connection.
    pub(super) fn load(&self) -> &ConnectionLoad {
        &self.load
    }

    /// Learns from the last round how large a call is, and begins the next one.
    fn next_round(&mut self, number: u64) {
        let begun = self.load.begun();
        let call_bytes = match begun - self.round.begun {
            // A part of a large request.
            0 if self.round.left() == Some(0) => 2 * self.call_bytes,
            0 => self.call_bytes,
            calls => u64::midpoint(self.call_bytes, self.round.read / calls),
        };
        self.call_bytes = call_bytes.clamp(MIN_CALL_BYTES, MAX_CALL_BYTES);
        self.round = Round {
            number,
            begun,
            ..Round::default()
        };
    }

    /// Waits until something may be read, and returns how many bytes.
    fn poll_allowance(&mut self, context: &mut Context<'_>) -> Poll<u64> {
        let mut slots = self.load.free_slots();
        if slots == 0 {
            self.load.wake_at_end(context.waker());
            // A call may have ended meanwhile.
            slots = self.load.free_slots();
        }
        if slots > 0 {
            self.is_paused = false;
            let slots = u64::try_from(slots).unwrap_or(u64::MAX);
            return Poll::Ready(slots.saturating_mul(self.call_bytes));
        }
        let pause = self
            .pause
            .get_or_insert_with(|| Box::pin(sleep(Duration::ZERO)));
        if !self.is_paused {
            let length = PAUSE_PER_CONNECTION.saturating_mul(self.load.busy_connections());
            let length = length.clamp(MIN_PAUSE, MAX_PAUSE);
            pause.as_mut().reset(Instant::now() + length);
            self.is_paused = true;
            self.pauses.inc();
        }
        ready!(pause.as_mut().poll(context));
        self.is_paused = false;
        Poll::Ready(LITTLE)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Throttled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let number = this.load.round();
        if number != this.round.number {
            this.next_round(number);
        }
        let left = match this.round.left() {
            Some(0) => {
                // The calls of this round begin once this poll returns.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(left) => left,
            None => {
                let allowance = ready!(this.poll_allowance(context));
                this.round.allowance = Some(allowance);
                allowance
            }
        };
        this.stream.set_limit(left);
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        this.round.read += left - this.stream.limit();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Throttled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.stream.get_mut()).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::{
        io::{AsyncWriteExt, DuplexStream, duplex},
        time::timeout,
    };

    use super::*;

    /// Longer than any pause; the clock is paused, so it takes no time.
    const LONG: Duration = Duration::from_secs(10);
    const LIMIT: usize = 100;

    fn connection(all: &Arc<Load>) -> Arc<ConnectionLoad> {
        ConnectionLoad::new(all, [127, 0, 0, 1].into())
    }

    fn begin(load: &Arc<ConnectionLoad>, calls: usize) -> Vec<Arc<InWork>> {
        (0..calls).map(|_| load.begin()).collect()
    }

    /// Returns a stream with 50,000 bytes to read.
    async fn stream(load: &Arc<ConnectionLoad>) -> (Throttled<DuplexStream>, DuplexStream) {
        let (near, mut far) = duplex(1 << 16);
        far.write_all(&[0; 50_000]).await.unwrap();
        let pauses = IntCounter::new("pauses", "Pauses.").unwrap();
        (Throttled::new(near, Arc::clone(load), pauses), far)
    }

    /// Reads in one round.
    async fn read(stream: &mut Throttled<DuplexStream>) -> u64 {
        let load = Arc::clone(&stream.load);
        let mut buffer = [0; 1 << 16];
        let mut reading = Box::pin(stream.read(&mut buffer));
        let read = timeout(LONG, in_rounds(reading.as_mut(), &load)).await;
        read.map_or(0, |read| u64::try_from(read.unwrap()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_read_as_far_as_slots_suffice() {
        let load = connection(&Load::new(LIMIT));
        let (mut stream, _far) = stream(&load).await;
        assert_eq!(read(&mut stream).await, 100 * FIRST_CALL_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_round_waits_until_its_calls_have_begun() {
        let load = connection(&Load::new(LIMIT));
        let (mut stream, _far) = stream(&load).await;
        read(&mut stream).await;
        let mut buffer = [0; 16];
        let again = stream.read(&mut buffer).now_or_never();
        assert!(again.is_none(), "without another round");
        let _calls = begin(&load, LIMIT - 1);
        assert_eq!(read(&mut stream).await, stream.call_bytes);
    }

    #[tokio::test(start_paused = true)]
    async fn the_size_of_calls_is_learnt() {
        let all = Load::new(LIMIT);
        let load = connection(&all);
        let _others = begin(&connection(&all), 2 * LIMIT);
        let (mut stream, _far) = stream(&load).await;
        // Nothing but parts of one large request.
        for round in 0..5 {
            assert_eq!(read(&mut stream).await, FIRST_CALL_BYTES << round);
        }
        for _ in 0..20 {
            let read = read(&mut stream).await;
            drop(begin(&load, usize::try_from(read / 100).unwrap()));
        }
        assert!(stream.call_bytes < 200, "{}", stream.call_bytes);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_over_its_share_is_read_again_when_a_call_ends() {
        let all = Load::new(LIMIT);
        let (load, other) = (connection(&all), connection(&all));
        let _others = begin(&other, 10);
        let mut calls = begin(&load, LIMIT / 2);
        let (mut stream, _far) = stream(&load).await;
        let begun = Instant::now();
        assert_eq!(read(&mut stream).await, LITTLE);
        assert_eq!(begun.elapsed().as_millis(), MIN_PAUSE.as_millis());
        assert_eq!(stream.pauses.get(), 1);
        let reading = tokio::spawn(async move { (read(&mut stream).await, Instant::now()) });
        tokio::task::yield_now().await;
        drop(calls.pop());
        let (read, at) = reading.await.unwrap();
        assert!(read > 0);
        assert_eq!(at - begun, MIN_PAUSE, "without another pause");
    }
}
