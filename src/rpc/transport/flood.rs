//! Closes a connection that floods the server with frames that do no work.
//!
//! Frames such as PING, SETTINGS, PRIORITY and tiny DATA, and streams that are reset at once, need
//! no credential, and a client can send millions of them per second. Each connection therefore has a
//! budget for them. Calls and responses refill it, because they are what clients send such frames
//! for: WINDOW_UPDATE for the bytes of a response, PING to measure the path of a call. A busy client
//! never exhausts it, at any rate of calls.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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
/// does. Beside those it may cancel all its streams twice at once, and once in a second.
const RESETS_PER_CALL: f64 = 0.5;
const MAX_RESETS_PER_STREAM: f64 = 2.0;
const RESETS_PER_SECOND_AND_STREAM: f64 = 1.0;
/// Minimum number of streams for which resets are counted, so that a low limit of streams does not
/// make usual clients look like floods.
const MIN_STREAMS: f64 = 100.0;

/// The type of a GOAWAY frame, and its error ENHANCE_YOUR_CALM (RFC 9113, sections 6.8 and 7).
const GOAWAY: u8 = 0x7;
const ENHANCE_YOUR_CALM: u8 = 0xb;

/// The reason for which a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flood {
    /// Too many frames that do no work.
    Frames,
    /// Too many streams that the client reset.
    Resets,
}

impl Flood {
    /// Returns the name for the log and for the debug data of GOAWAY.
    pub(super) fn name(self) -> &'static str {
        match self {
            Flood::Frames => "too_many_frames",
            Flood::Resets => "too_many_resets",
        }
    }
}

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

    fn is_exhausted(&self) -> bool {
        self.level < 0.0
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

    fn flood(&self) -> Option<Flood> {
        if self.resets.is_exhausted() {
            return Some(Flood::Resets);
        }
        self.frames.is_exhausted().then_some(Flood::Frames)
    }
}

/// A stream that fails once its client floods it, after a GOAWAY.
pub(super) struct Guarded<S> {
    stream: S,
    incoming: Frames,
    outgoing: Frames,
    budgets: Budgets,
    counted_at: Instant,
    flood: Arc<OnceLock<Flood>>,
}

impl<S> Guarded<S> {
    /// Guards a connection that may have `streams` concurrent streams. Also returns where to learn
    /// of a flood.
    pub(super) fn new(stream: S, streams: u32) -> (Self, Arc<OnceLock<Flood>>) {
        let flood = Arc::default();
        let guarded = Guarded {
            stream,
            incoming: Frames::after(PREFACE),
            outgoing: Frames::after(0),
            budgets: Budgets::new(streams),
            counted_at: Instant::now(),
            flood: Arc::clone(&flood),
        };
        (guarded, flood)
    }

    fn count(&mut self, bytes: &[u8]) -> Option<Flood> {
        let now = Instant::now();
        self.budgets.pass(now - self.counted_at);
        self.counted_at = now;
        let budgets = &mut self.budgets;
        self.incoming
            .read(bytes, |kind, stream| budgets.receive(kind, stream));
        budgets.flood()
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    /// Tells the client why its connection is closed, if it can be told at once: a client that does
    /// not read the frames before cannot.
    fn send_goaway(&mut self, context: &mut Context<'_>, flood: Flood) {
        if !self.outgoing.is_between_frames() {
            return;
        }
        let debug = flood.name().as_bytes();
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
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        if let Some(flood) = self.count(bytes) {
            if self.flood.set(flood).is_ok() {
                self.send_goaway(context, flood);
            }
            return Poll::Ready(Err(io::Error::other(flood.name())));
        }
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
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Sends frames for a second, so often. Returns the flood that they are, if any.
    fn second(budgets: &mut Budgets, frames: &[(Kind, usize)]) -> Option<Flood> {
        let rounds = frames.iter().map(|(_, count)| *count).max().unwrap();
        for round in 0..rounds {
            budgets.pass(SECOND / u32::try_from(rounds).unwrap());
            for (kind, count) in frames {
                if round * count / rounds != (round + 1) * count / rounds {
                    budgets.receive(*kind, 1);
                }
            }
            if let Some(flood) = budgets.flood() {
                return Some(flood);
            }
        }
        None
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
                assert_eq!(second(&mut budgets, &frames), None, "{calls}");
            }
        }
    }

    #[test]
    fn all_streams_may_be_cancelled_at_once_and_every_second() {
        for streams in [1, 100, 256, 4096] {
            let mut budgets = Budgets::new(streams);
            for _ in 0..10 {
                for _ in 0..streams {
                    budgets.receive(Kind::Headers, 1);
                }
                for _ in 0..streams {
                    budgets.receive(Kind::Reset, 1);
                }
                assert_eq!(budgets.flood(), None, "{streams}");
                budgets.pass(SECOND);
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
        assert_eq!(budgets.flood(), None);
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
                assert_eq!(budgets.flood(), None, "{size}");
            }
        }
    }

    #[test]
    fn floods_are_told_by_their_rate() {
        let mut budgets = Budgets::new(256);
        let frames = [(Kind::Other, 500)];
        for _ in 0..10 {
            assert_eq!(second(&mut budgets, &frames), None);
        }
        for flood in [Kind::Other, Kind::Data(0), Kind::Data(1), Kind::Data(20)] {
            let mut budgets = Budgets::new(256);
            let frames = [(flood, 100_000)];
            assert_eq!(second(&mut budgets, &frames), Some(Flood::Frames));
        }
        let mut budgets = Budgets::new(256);
        let frames = [(Kind::Headers, 10_000), (Kind::Reset, 10_000)];
        assert_eq!(second(&mut budgets, &frames), Some(Flood::Resets));
    }
}
