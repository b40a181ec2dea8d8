//! The reasons for which the service closes a connection itself, and the frame that tells them.

/// The type of a GOAWAY frame, and its error ENHANCE_YOUR_CALM (RFC 9113, sections 6.8 and 7).
const GOAWAY: u8 = 0x7;
const ENHANCE_YOUR_CALM: u8 = 0xb;

/// The reason for which a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// Frames that do no work.
    Frames,
    /// A block of headers that does not arrive completely in time.
    SlowHeaders,
    /// Too many connections of the client have incomplete headers.
    IncompleteHeaders,
    /// Calls without a valid credential.
    RefusedCalls,
}

impl CloseReason {
    /// Returns the debug data of GOAWAY, which is also the error of reading.
    pub(super) fn debug_data(self) -> &'static str {
        match self {
            CloseReason::Frames => "too_many_frames",
            CloseReason::SlowHeaders => "headers_incomplete_for_too_long",
            CloseReason::IncompleteHeaders => "too_many_incomplete_headers",
            CloseReason::RefusedCalls => "too_many_refused_calls",
        }
    }

    /// Returns the frame GOAWAY. The client may retry the calls of streams after `last_stream`, which
    /// were not read.
    pub(super) fn goaway(self, last_stream: u32) -> Vec<u8> {
        let debug = self.debug_data().as_bytes();
        let length = u8::try_from(8 + debug.len()).unwrap_or(8);
        let mut frame = vec![0, 0, length, GOAWAY, 0, 0, 0, 0, 0];
        frame.extend(last_stream.to_be_bytes());
        frame.extend([0, 0, 0, ENHANCE_YOUR_CALM]);
        frame.extend(debug);
        frame
    }
}
