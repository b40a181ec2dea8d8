//! Writes many answers at once.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that lets other tasks run before it writes.
///
/// A batch answers many calls of a connection at once, and each of them wakes the
/// task that writes. tokio runs a task that was just woken before those that were
/// waiting, so it would write after every single call, with a system call each.
/// Having stepped back once, it finds the answers of all of them.
///
/// It steps back at most once before it writes, and not at all if new calls came
/// while it ran, because then it reads, writes and reads again in one go.
pub struct Coalescing<S> {
    stream: S,
    turn: Turn,
}

/// How far the task is that first reads, then writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It has nothing to write so far.
    Reads,
    /// It had, and has let others run.
    MayWrite,
    /// It has written.
    Wrote,
}

impl<S> From<S> for Coalescing<S> {
    fn from(stream: S) -> Self {
        Coalescing {
            stream,
            turn: Turn::Reads,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalescing<S> {
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
/// writes many of them at once. Those that are longer are written one by one, in
/// two pieces where a vectored write would have been one.
impl<S: AsyncWrite + Unpin> AsyncWrite for Coalescing<S> {
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

    /// Counts how often it is woken.
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
        /// A task, and the other end, with room for so many bytes between them.
        fn new(room: usize) -> (Self, DuplexStream) {
            let (near, far) = duplex(room);
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
    fn it_steps_back_once_before_it_writes() {
        let (mut task, _far) = Task::new(64);
        for wakes in 1..=3 {
            assert_eq!(task.read(), Poll::Pending);
            assert_eq!(task.write(b"a"), Poll::Pending);
            assert_eq!(task.wakes(), wakes, "it wakes itself");
            // It runs again, and writes as much as it has.
            assert_eq!(task.read(), Poll::Pending);
            assert_eq!(task.write(b"a"), Poll::Ready(1));
            assert_eq!(task.write(b"bc"), Poll::Ready(2));
            assert_eq!(task.wakes(), wakes);
        }
    }

    #[tokio::test]
    async fn it_goes_on_where_the_other_end_let_it_wait() {
        let (mut task, mut far) = Task::new(2);
        assert_eq!(task.write(b"abcd"), Poll::Pending);
        assert_eq!(task.write(b"abcd"), Poll::Ready(2));
        assert_eq!(task.write(b"cd"), Poll::Pending);
        assert_eq!(task.wakes(), 1);
        let mut received = [0; 2];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(task.wakes(), 2, "there is room again");
        assert_eq!(task.write(b"cd"), Poll::Ready(2));
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"cd");
    }
}
