//! A watch of the journal: what to stream, and where to begin.

use crate::{
    db::feed::scope::TransitionMatch,
    domain::{id::BridgeId, position::Position},
};

/// The request to stream the journal.
#[derive(Debug)]
pub struct WatchRequest {
    /// The transitions to stream.
    pub wanted: TransitionMatch,
    /// Where to begin.
    pub begin: WatchBegin,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchBegin {
    /// After a position.
    After(Position),
    /// With the oldest row.
    Start,
    /// With the rows that are not committed yet.
    Now,
    /// After the position that a bridge has consumed.
    AfterBridge(BridgeId),
}
