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

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::frames::{Frames, Kind, PREFACE};

/// Frames without work that a new connection may send: the first ones of usual clients are a
/// dozen. So small that reconnecting costs a flooding client more than the frames.
const FIRST_FRAMES: f64 = 200.0;
/// Maximum of the budget of frames, which is also the default of nghttp2, and what it gains in a
/// second, for each call, and for each KiB of responses. Some clients send two WINDOW_UPDATE frames
/// and a PING for each small response.
const MAX_FRAMES: f64 = 10_000.0;
const FRAMES_PER_SECOND: f64 = 1000.0;
const FRAMES_PER_CALL: f64 = 10.0;
const FRAMES_PER_KIB: f64 = 1.0;
/// Content of a DATA frame, in bytes, from which it costs nothing. A smaller one costs a part of a
/// frame: the limit of a message bounds the bytes of a call, but not the frames that carry them.
const FREE_DATA: f64 = 256.0;

/// The budget of resets, in calls. A client may cancel half of its calls at any rate, as hedging
/// does. It may also cancel all its streams every 125 ms.
const RESETS_PER_CALL: f64 = 0.5;
const MAX_RESETS_PER_STREAM: f64 = 8.0;
const RESETS_PER_SECOND_AND_STREAM: f64 = 4.0;
/// Minimum number of streams for which resets are counted, so that a low limit of streams does not
/// slow down usual clients.
const MIN_STREAMS: f64 = 100.0;

/// The type of a GOAWAY frame, and its error ENHANCE_YOUR_CALM (RFC 9113, sections 6.8 and 7).
const GOAWAY: u8 = 0x7;
const ENHANCE_YOUR_CALM: u8 = 0xb;

/// The debug data of GOAWAY, and the error of reading a connection that is closed.
const TOO_MANY_FRAMES: &str = "too_many_frames";

/// A budget that grows with time up to a maximum.
struct Budget {
    level: f64,
    max: f64,
    per_second: f64,
}

impl Budget {
    fn gain(&mut self, amount: f64) {
        self.level = (self.level + amount).min(self.max);
    }

    fn pass(&mut self, time: Duration) {
        self.gain(time.as_secs_f64() * self.per_second);
    }

    /// Returns the time until the budget is no longer exhausted, if it is.
    fn debt(&self) -> Option<Duration> {
        (self.level < 0.0).then(|| Duration::from_secs_f64(-self.level / self.per_second))
    }
}

/// The budgets of a connection.
struct Budgets {
    frames: Budget,
    resets: Budget,
    /// The newest stream of the client.
    last_stream: u32,
}

impl Budgets {
    fn new(streams: u32) -> Self {
        let streams = f64::from(streams).max(MIN_STREAMS);
        let max_resets = streams * MAX_RESETS_PER_STREAM;
        Budgets {
            frames: Budget {
                level: FIRST_FRAMES,
                max: MAX_FRAMES,
                per_second: FRAMES_PER_SECOND,
            },
            resets: Budget {
                level: max_resets,
                max: max_resets,
                per_second: streams * RESETS_PER_SECOND_AND_STREAM,
            },
            last_stream: 0,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.frames.pass(time);
        self.resets.pass(time);
    }

    fn receive(&mut self, kind: Kind, stream: u32) {
        match kind {
            Kind::Headers => {
                self.last_stream = self.last_stream.max(stream);
                self.frames.gain(FRAMES_PER_CALL);
                self.resets.gain(RESETS_PER_CALL);
            }
            Kind::Data(bytes) => {
                self.frames.level -= (1.0 - f64::from(bytes) / FREE_DATA).max(0.0);
            }
            Kind::Reset => self.resets.level -= 1.0,
            Kind::Other => self.frames.level -= 1.0,
        }
    }

    fn send(&mut self, bytes: usize) {
        // A single write is far below 4 GiB.
        let kibibytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1024.0;
        self.frames.gain(kibibytes * FRAMES_PER_KIB);
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
    /// Ends the time in which resets are paid for.
    pause: Option<Pin<Box<Sleep>>>,
    is_flooded: Arc<AtomicBool>,
}

impl<S> Guarded<S> {
    /// Guards a connection that may have `streams` concurrent streams. Also returns whether it is
    /// flooded, for later.
    pub(super) fn new(stream: S, streams: u32) -> (Self, Arc<AtomicBool>) {
        let is_flooded = Arc::default();
        let guarded = Guarded {
            stream,
            incoming: Frames::after(PREFACE),
            outgoing: Frames::after(0),
            budgets: Budgets::new(streams),
            counted_at: Instant::now(),
            pause: None,
            is_flooded: Arc::clone(&is_flooded),
        };
        (guarded, is_flooded)
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
    fn send_goaway(&mut self, context: &mut Context<'_>) {
        if !self.outgoing.is_between_frames() {
            return;
        }
        let debug = TOO_MANY_FRAMES.as_bytes();
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
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        self.count(bytes);
        if self.budgets.frames.debt().is_some() {
            if !self.is_flooded.swap(true, Ordering::Relaxed) {
                self.send_goaway(context);
            }
            return Poll::Ready(Err(io::Error::other(TOO_MANY_FRAMES)));
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn is_exhausted(budgets: &Budgets) -> bool {
        budgets.frames.debt().is_some() || budgets.resets.debt().is_some()
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// Sends frames for a second, so often. Returns whether a budget is exhausted.
    fn second(budgets: &mut Budgets, frames: &[(Kind, usize)]) -> bool {
        let rounds = frames.iter().map(|(_, count)| *count).max().unwrap();
        for round in 0..rounds {
            budgets.pass(SECOND / u32::try_from(rounds).unwrap());
            for (kind, count) in frames {
                if round * count / rounds != (round + 1) * count / rounds {
                    budgets.receive(*kind, 1);
                }
            }
            if is_exhausted(budgets) {
                return true;
            }
        }
        false
    }

    #[test]
    fn busy_clients_are_no_flood_at_any_rate() {
        let mut budgets = Budgets::new(256);
        for calls in [10, 1000, 50_000] {
            let frames = [
                (Kind::Headers, calls),
                // The header of a message, a small message, and the end of the stream.
                (Kind::Data(5), calls),
                (Kind::Data(50), calls),
                (Kind::Data(0), calls),
                (Kind::Other, 3 * calls),
                // Hedging: every second call is cancelled.
                (Kind::Reset, calls / 2),
            ];
            for _ in 0..5 {
                assert!(!second(&mut budgets, &frames), "{calls}");
            }
        }
    }

    #[test]
    fn all_streams_may_be_cancelled_every_125_ms() {
        for streams in [1, 100, 256, 4096] {
            let mut budgets = Budgets::new(streams);
            for _ in 0..100 {
                for _ in 0..streams {
                    budgets.receive(Kind::Headers, 1);
                }
                for _ in 0..streams {
                    budgets.receive(Kind::Reset, 1);
                }
                assert!(!is_exhausted(&budgets), "{streams}");
                budgets.pass(SECOND / 8);
            }
        }
    }

    #[test]
    fn a_large_response_pays_for_its_window_updates() {
        let mut budgets = Budgets::new(256);
        for _ in 0..1000 {
            budgets.receive(Kind::Headers, 1);
            // 4 MiB in frames of 16 KiB, each with two WINDOW_UPDATE frames.
            for _ in 0..256 {
                budgets.send(16 * 1024);
                budgets.receive(Kind::Other, 1);
                budgets.receive(Kind::Other, 1);
            }
        }
        assert!(!is_exhausted(&budgets));
    }

    #[test]
    fn a_large_request_costs_nothing_in_frames_of_a_usual_size() {
        for size in [256, 1400, 16 * 1024] {
            let mut budgets = Budgets::new(256);
            for _ in 0..100 {
                budgets.receive(Kind::Headers, 1);
                for _ in 0..4 * 1024 * 1024 / size {
                    budgets.receive(Kind::Data(size), 1);
                }
                assert!(!is_exhausted(&budgets), "{size}");
            }
        }
    }

    #[test]
    fn floods_are_told_by_their_rate() {
        let mut budgets = Budgets::new(256);
        let frames = [(Kind::Other, 500)];
        for _ in 0..10 {
            assert!(!second(&mut budgets, &frames));
        }
        for flood in [Kind::Other, Kind::Data(0), Kind::Data(1), Kind::Data(20)] {
            let mut budgets = Budgets::new(256);
            let frames = [(flood, 100_000)];
            assert!(second(&mut budgets, &frames));
        }
    }

    /// A client that resets each of its calls at once is read at the rate that its budget gains.
    #[tokio::test(start_paused = true)]
    async fn a_flood_of_resets_is_read_slowly() {
        let headers: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 0, 1];
        let reset: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
        let mut flood = vec![0; PREFACE];
        flood.extend([headers, reset].concat().repeat(10_000));
        let (near, mut far) = duplex(1024);
        let sending = tokio::spawn(async move { far.write_all(&flood).await });
        let (mut stream, is_flooded) = Guarded::new(near, 100);
        let begun = Instant::now();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        sending.await.unwrap().unwrap();
        assert!(!is_flooded.load(Ordering::Relaxed));
        // 5,000 calls remain to pay for, 800 are free, and each second pays for 400.
        assert_eq!(begun.elapsed().as_millis() / 100, 105);
    }
}
