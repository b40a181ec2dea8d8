//! Why a stream of the journal ends, or cannot begin.

use super::{Code, Description, describe::BUSY_RETRY};

/// The end of a stream. Each names the position to go on after.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// The stream would miss rows.
    #[error(
        "rows of the journal after this position are gone: retention removed them, or the database was \
         restored or failed over without them; read the present states, then watch from there, or accept \
         the gap and watch after {oldest_position}"
    )]
    Gone {
        /// The position after which the rows are complete.
        oldest_position: String,
    },
    /// The client does not take messages.
    #[error(
        "the client did not take a message for 10 s; read faster or filter more, and watch again after {position}"
    )]
    TooSlow {
        /// The position that the stream has come to.
        position: String,
    },
    /// The connection closes.
    #[error("the connection closes; watch again after {position}, on another connection")]
    Closing {
        /// The position that the stream has come to.
        position: String,
    },
    /// The caller's deadline has passed.
    #[error("the deadline passed; watch again after {position}")]
    Deadline {
        /// The position that the stream has come to.
        position: String,
    },
}

impl WatchEnd {
    pub(super) fn describe(&self) -> Description {
        let new = Description::new;
        match self {
            WatchEnd::Gone { oldest_position } => {
                new(Code::OutOfRange, "RESUME_POINT_GONE").with("oldest_position", oldest_position)
            }
            WatchEnd::TooSlow { position } => {
                new(Code::ResourceExhausted, "CONSUMER_TOO_SLOW").with("position", position)
            }
            WatchEnd::Closing { position } => new(Code::Unavailable, "WATCH_ENDED")
                .with("position", position)
                .retry_after(BUSY_RETRY),
            WatchEnd::Deadline { position } => {
                new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED").with("position", position)
            }
        }
    }
}
