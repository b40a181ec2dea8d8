//! Write coalescing: sends the answers of many calls in one write.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that yields to other tasks before it writes.
///
/// A batch answers many calls of a connection at once, and each answer wakes the task that
/// writes. tokio runs a task that was just woken before those that were waiting, so the
/// task would write after every single call, with one system call each. After it has
/// yielded once, it finds the answers of all of them.
///
/// The stream yields at most once before it writes. It does not yield if new calls
/// arrived meanwhile, because the task then reads, writes and reads again in one poll.
pub struct Coalescing<S> {
    stream: S,
    state: State,
}

/// The state of the task that reads, yields and writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The task has written nothing since it last read.
    Reading,
    /// The task had something to write, and has yielded.
    Yielded,
    /// The task has written.
    Written,
}

impl<S> From<S> for Coalescing<S> {
    fn from(stream: S) -> Self {
        Coalescing {
            stream,
            state: State::Reading,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalescing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.state == State::Written {
            self.state = State::Reading;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

/// Not vectored, so that h2 copies messages of up to 1 KiB into its buffer and writes many
/// of them at once. The cost: it writes a longer message in two calls instead of one.
impl<S: AsyncWrite + Unpin> AsyncWrite for Coalescing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.state == State::Reading {
            self.state = State::Yielded;
            // tokio puts a task that wakes itself at the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.state = State::Written;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    /// Counts wake-ups.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Task {
        connection: Coalescing<DuplexStream>,
        wakes: Arc<Wakes>,
    }

    impl Task {
        /// Makes a task and the far end of its stream, with a buffer of `capacity` bytes
        /// between them.
        fn new(capacity: usize) -> (Self, DuplexStream) {
            let (near, far) = duplex(capacity);
            let task = Task {
                connection: near.into(),
                wakes: Arc::default(),
            };
            (task, far)
        }

        fn wakes(&self) -> usize {
            self.wakes.0.load(Ordering::Relaxed)
        }

        fn read(&mut self) -> Poll<usize> {
            let waker = Waker::from(self.wakes.clone());
            let mut buffer = [0; 8];
            let mut buffer = ReadBuf::new(&mut buffer);
            Pin::new(&mut self.connection)
                .poll_read(&mut Context::from_waker(&waker), &mut buffer)
                .map(|read| read.map(|()| buffer.filled().len()).unwrap())
        }

        fn write(&mut self, bytes: &[u8]) -> Poll<usize> {
            let waker = Waker::from(self.wakes.clone());
            Pin::new(&mut self.connection)
                .poll_write(&mut Context::from_waker(&waker), bytes)
                .map(Result::unwrap)
        }
    }

    #[test]
    fn it_yields_once_before_it_writes() {
        let (mut task, _far) = Task::new(64);
        for wakes in 1..=3 {
            assert_eq!(task.read(), Poll::Pending);
            assert_eq!(task.write(b"a"), Poll::Pending);
            assert_eq!(task.wakes(), wakes, "the task wakes itself");
            // The next poll writes everything.
            assert_eq!(task.read(), Poll::Pending);
            assert_eq!(task.write(b"a"), Poll::Ready(1));
            assert_eq!(task.write(b"bc"), Poll::Ready(2));
            assert_eq!(task.wakes(), wakes);
        }
    }

    #[tokio::test]
    async fn backpressure_does_not_make_it_yield_again() {
        let (mut task, mut far) = Task::new(2);
        assert_eq!(task.write(b"abcd"), Poll::Pending);
        assert_eq!(task.write(b"abcd"), Poll::Ready(2));
        assert_eq!(task.write(b"cd"), Poll::Pending);
        assert_eq!(task.wakes(), 1);
        let mut received = [0; 2];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(task.wakes(), 2, "the buffer has room");
        assert_eq!(task.write(b"cd"), Poll::Ready(2));
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"cd");
    }
}
