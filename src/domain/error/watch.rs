//! Why a stream of the journal ends, or cannot begin.

use super::{Code, Description, describe::BUSY_RETRY};

/// The end of a stream. Each names the position to go on after; `None` if the client's copy is not complete
/// yet, so that it has nothing to go on after.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// The stream would miss rows.
    #[error(
        "rows of the journal after this position are gone: retention removed them, or the database was \
         restored or failed over without them, or the pattern does not include the namespace of the \
         position; read the present states, then watch from there, or accept \
         the gap and watch after {oldest_position}"
    )]
    Gone {
        /// The position after which the rows are complete.
        oldest_position: String,
    },
    /// The client does not take messages, or there is no memory for further ones of its token.
    #[error(
        "the client took too long for a message, or there is no memory for further messages of its token; \
         read faster or filter more, and {}",
        again(position.as_deref())
    )]
    TooSlow {
        /// The position that the stream has come to.
        position: Option<String>,
    },
    /// The connection closes.
    #[error("the connection closes; {}, on another connection", again(position.as_deref()))]
    Closing {
        /// The position that the stream has come to.
        position: Option<String>,
    },
    /// The caller's deadline has passed.
    #[error("the deadline passed; {}", again(position.as_deref()))]
    Deadline {
        /// The position that the stream has come to.
        position: Option<String>,
    },
}

/// Returns what the client of a stream that has ended has to do.
fn again(position: Option<&str>) -> String {
    match position {
        Some(position) => format!("watch again after {position}"),
        None => "ask for a new snapshot".into(),
    }
}

impl WatchEnd {
    pub(super) fn describe(&self) -> Description {
        let new = Description::new;
        let (description, position) = match self {
            WatchEnd::Gone { oldest_position } => {
                let gone = new(Code::OutOfRange, "RESUME_POINT_GONE");
                return gone.with("oldest_position", oldest_position);
            }
            WatchEnd::TooSlow { position } => {
                let slow = new(Code::ResourceExhausted, "CONSUMER_TOO_SLOW");
                (slow.retry_after(BUSY_RETRY), position)
            }
            WatchEnd::Closing { position } => {
                let closing = new(Code::Unavailable, "WATCH_ENDED");
                (closing.retry_after(BUSY_RETRY), position)
            }
            WatchEnd::Deadline { position } => {
                (new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"), position)
            }
        };
        match position {
            Some(position) => description.with("position", position),
            None => description,
        }
    }
}
