//! Backpressure: while the service is busy, a connection is read only as fast as its calls end.
//!
//! A rejected call costs a large part of one that succeeds, so a service that only rejects does
//! little else under overload. A client whose bytes are not read waits instead: its calls stay in
//! its own queue, and cost the service nothing.
//!
//! All calls in work share [`MAX_IN_WORK`] places. A call is in work until its response is ready, but
//! not while it waits for its client: for the rest of a request, or until a response is read.
//! The connections with calls in work have equal shares of the places. A connection that has used
//! its share is read again as soon as one of its calls ends.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take},
    time::{Instant, Sleep, sleep},
};

/// How many calls are in work before connections wait: two full batches, and as many calls that
/// arrive meanwhile. More would only wait in the queues of the batches.
const MAX_IN_WORK: usize = 2048;

/// The number of calls in work up to which no connection waits.
const IDLE: usize = MAX_IN_WORK / 2;

/// How many calls a connection may have in work, however many connections there are.
const MIN_SHARE: usize = 4;

/// The size of a small call, in bytes: the number of bytes to read for each free place of a share.
const CALL_BYTES: u64 = 256;

/// What an idle service reads at once, at least, in bytes.
const PIECE: u64 = 4096;

/// How long a connection waits at most before a little is read: frames that cancel calls, that
/// answer a keepalive, or that open the window of a response.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// What is then read, in bytes.
const LITTLE: u64 = 1024;

/// The calls in work of all connections.
#[derive(Default)]
pub struct Load {
    in_work: AtomicUsize,
    /// The number of connections that have calls in work.
    connections: AtomicUsize,
}

/// The calls in work of one connection.
pub struct ConnectionLoad {
    all: Arc<Load>,
    in_work: AtomicUsize,
    /// Wakes the task of the connection when a call ends.
    waker: AtomicWaker,
}

impl ConnectionLoad {
    /// Makes the load of a new connection.
    #[must_use]
    pub fn new(all: &Arc<Load>) -> Arc<Self> {
        Arc::new(ConnectionLoad {
            all: Arc::clone(all),
            in_work: AtomicUsize::new(0),
            waker: AtomicWaker::new(),
        })
    }

    /// Notes that a call is in work, until the returned value is dropped. Requests carry it as an
    /// extension to the limit layer.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Arc<InWork> {
        self.all.in_work.fetch_add(1, Ordering::Relaxed);
        if self.in_work.fetch_add(1, Ordering::Relaxed) == 0 {
            self.all.connections.fetch_add(1, Ordering::Relaxed);
        }
        Arc::new(InWork(Arc::clone(self)))
    }

    /// Returns how many bytes may be read now. An idle service reads in pieces, too: all connections
    /// together could otherwise fill it many times over before the first call is in work.
    fn readable(&self) -> u64 {
        let is_idle = self.all.in_work.load(Ordering::Relaxed) < IDLE;
        let connections = self.all.connections.load(Ordering::Relaxed).max(1);
        let share = (MAX_IN_WORK / connections).max(MIN_SHARE);
        let left = share.saturating_sub(self.in_work.load(Ordering::Relaxed));
        let bytes = u64::try_from(left).unwrap_or(u64::MAX) * CALL_BYTES;
        bytes.max(if is_idle { PIECE } else { 0 })
    }
}

/// A call in work, until it is dropped.
pub struct InWork(Arc<ConnectionLoad>);

impl Drop for InWork {
    fn drop(&mut self) {
        let ConnectionLoad {
            all,
            in_work,
            waker,
        } = &*self.0;
        all.in_work.fetch_sub(1, Ordering::Relaxed);
        if in_work.fetch_sub(1, Ordering::Relaxed) == 1 {
            all.connections.fetch_sub(1, Ordering::Relaxed);
        }
        waker.wake();
    }
}

/// A stream that is read only as far as the share of its connection allows.
pub(super) struct Throttled<S> {
    stream: Take<S>,
    load: Arc<ConnectionLoad>,
    /// Ends the pause; `None` while the connection is read.
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead> Throttled<S> {
    /// Throttles a connection by its load.
    pub(super) fn new(stream: S, load: Arc<ConnectionLoad>) -> Self {
        Throttled {
            stream: stream.take(u64::MAX),
            load,
            pause: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Throttled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut limit = this.load.readable();
        if limit == 0 {
            this.load.waker.register(context.waker());
            // A call may have ended meanwhile.
            limit = this.load.readable();
        }
        if limit == 0 {
            let pause = this.pause.get_or_insert_with(|| Box::pin(sleep(MAX_PAUSE)));
            if pause.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            pause.as_mut().reset(Instant::now() + MAX_PAUSE);
            limit = LITTLE;
        } else {
            this.pause = None;
        }
        this.stream.set_limit(limit);
        Pin::new(&mut this.stream).poll_read(context, buffer)
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
    use tokio::{
        io::{AsyncWriteExt, duplex},
        time::timeout,
    };

    use super::*;

    /// Longer than any pause; the clock is paused, so it takes no time.
    const LONG: Duration = Duration::from_secs(10);

    async fn read(stream: &mut Throttled<tokio::io::DuplexStream>) -> usize {
        let mut buffer = [0; 1 << 16];
        let read = timeout(LONG, stream.read(&mut buffer)).await;
        read.map_or(0, Result::unwrap)
    }

    fn begin(load: &Arc<ConnectionLoad>, calls: usize) -> Vec<Arc<InWork>> {
        (0..calls).map(|_| load.begin()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_service_reads_everything() {
        let (near, mut far) = duplex(1 << 16);
        let load = ConnectionLoad::new(&Arc::default());
        let _calls = begin(&load, IDLE - 1);
        far.write_all(&[0; 50_000]).await.unwrap();
        assert_eq!(read(&mut Throttled::new(near, load)).await, 50_000);
    }

    #[tokio::test(start_paused = true)]
    async fn many_connections_are_read_in_pieces() {
        let all = Arc::default();
        let loads: Vec<_> = (0..1000).map(|_| ConnectionLoad::new(&all)).collect();
        let _calls: Vec<_> = loads.iter().map(ConnectionLoad::begin).collect();
        let (near, mut far) = duplex(1 << 16);
        far.write_all(&[0; 50_000]).await.unwrap();
        let mut stream = Throttled::new(near, ConnectionLoad::new(&all));
        assert_eq!(read(&mut stream).await, usize::try_from(PIECE).unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_over_its_share_is_read_again_when_a_call_ends() {
        let (near, mut far) = duplex(1 << 16);
        let all = Arc::default();
        let (load, other) = (ConnectionLoad::new(&all), ConnectionLoad::new(&all));
        let _others = begin(&other, 10);
        let mut calls = begin(&load, MAX_IN_WORK / 2);
        let mut stream = Throttled::new(near, load);
        far.write_all(&[0; 50_000]).await.unwrap();
        let begun = Instant::now();
        assert_eq!(read(&mut stream).await, usize::try_from(LITTLE).unwrap());
        assert_eq!(begun.elapsed().as_millis(), MAX_PAUSE.as_millis());
        let reading = tokio::spawn(async move { (read(&mut stream).await, Instant::now()) });
        tokio::task::yield_now().await;
        drop(calls.pop());
        let (read, at) = reading.await.unwrap();
        assert_eq!(read, usize::try_from(CALL_BYTES).unwrap());
        assert_eq!(at - begun, MAX_PAUSE, "without another pause");
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_connection_does_not_stop_another() {
        let all = Arc::default();
        let (busy, other) = (ConnectionLoad::new(&all), ConnectionLoad::new(&all));
        let _calls = begin(&busy, 2 * MAX_IN_WORK);
        let (near, mut far) = duplex(1 << 16);
        far.write_all(&[0; 50_000]).await.unwrap();
        assert_eq!(read(&mut Throttled::new(near, other)).await, 50_000);
    }
}
