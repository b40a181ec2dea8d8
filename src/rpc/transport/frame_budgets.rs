//! The budgets of a connection for frames that do no work, and for resets.

use std::time::Duration;

use super::frames::Kind;
use crate::util::budget::Budget;

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

/// The budgets of a connection.
pub(super) struct Budgets {
    pub(super) frames: Budget,
    pub(super) resets: Budget,
    /// The newest stream of the client.
    pub(super) last_stream: u32,
}

impl Budgets {
    /// Makes the budgets of a connection that may have `streams` concurrent streams.
    pub(super) fn new(streams: u32) -> Self {
        let streams = f64::from(streams).max(MIN_STREAMS);
        let max_resets = streams * MAX_RESETS_PER_STREAM;
        Budgets {
            frames: Budget::new(FIRST_FRAMES, MAX_FRAMES, FRAMES_PER_SECOND),
            resets: Budget::new(
                max_resets,
                max_resets,
                streams * RESETS_PER_SECOND_AND_STREAM,
            ),
            last_stream: 0,
        }
    }

    /// Adds what the budgets gain in this time.
    pub(super) fn pass(&mut self, time: Duration) {
        self.frames.pass(time);
        self.resets.pass(time);
    }

    /// Counts a frame of the client.
    pub(super) fn receive(&mut self, kind: Kind, stream: u32) {
        match kind {
            Kind::Headers => {
                self.last_stream = self.last_stream.max(stream);
                self.frames.gain(FRAMES_PER_CALL);
                self.resets.gain(RESETS_PER_CALL);
            }
            Kind::Data(bytes) => {
                self.frames
                    .spend((1.0 - f64::from(bytes) / FREE_DATA).max(0.0));
            }
            Kind::Reset => self.resets.spend(1.0),
            Kind::Other => self.frames.spend(1.0),
        }
    }

    /// Counts bytes to the client.
    pub(super) fn send(&mut self, bytes: usize) {
        // A single write is far below 4 GiB.
        let kibibytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1024.0;
        self.frames.gain(kibibytes * FRAMES_PER_KIB);
    }
}

#[cfg(test)]
mod tests {
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
}
