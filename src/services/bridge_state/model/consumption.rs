//! What a bridge consumes of the journal of its namespace: each row exactly once.

use super::Bridge;
use crate::{
    db::journal::Xid,
    domain::{
        digest::RequestDigest,
        error::{Error, Result},
        id::BridgeId,
        position::Position,
    },
};

/// The rows of the journal that a batch consumes: after `from`, up to `through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumption {
    /// The position through which the bridge has to have consumed before; the origin if it has to
    /// have consumed nothing.
    pub from: Position,
    /// The position of the last row.
    pub through: Position,
}

/// What the journal has at the end of a consumption.
#[derive(Debug, Clone, Copy, Default)]
pub struct JournalEnd {
    /// The row with the id of the position, if it belongs to the namespace.
    pub row: Option<Position>,
    /// The last row of the namespace that retention removed.
    pub floor: Option<Position>,
    /// All transactions with a lower number have ended, so that no row can appear before theirs.
    pub horizon: u64,
}

/// Returns what orders a position: two positions of one row may differ in their ids.
fn order(position: Position) -> (u64, i64) {
    (position.xid, position.seq)
}

impl JournalEnd {
    /// Returns whether the journal has, or had, the row of a position. A failover or a restore loses
    /// rows, and gives their numbers to others. Removed rows were there.
    fn has(&self, position: Position) -> bool {
        self.row == Some(position) || self.is_removed(position)
    }

    /// Returns whether retention has removed the row of a position, and all before it.
    fn is_removed(&self, position: Position) -> bool {
        let floor = self.floor;
        floor.is_some_and(|floor| order(position) <= order(floor))
    }
}

impl Consumption {
    /// Returns whether the same request has made the bridge's present position.
    #[must_use]
    pub fn is_done(&self, bridge: &Bridge, digest: RequestDigest) -> bool {
        bridge.consumed() == Some(self.through) && bridge.consumed_digest == Some(digest)
    }

    /// Checks that the bridge, `None` for a new one, has consumed as far as the caller believes, and
    /// that the journal has the row up to which it is to consume.
    ///
    /// # Errors
    /// [`Error::ConsumptionChanged`], [`Error::ConsumedRowGone`], and [`Error::ConsumptionAhead`] if
    /// rows may still appear before that one.
    pub fn check(
        &self,
        id: BridgeId,
        namespace: &str,
        bridge: Option<&Bridge>,
        end: &JournalEnd,
    ) -> Result<()> {
        let current = bridge.and_then(Bridge::consumed).unwrap_or_default();
        let text = |position: Position| match position.is_origin() {
            true => String::new(),
            false => position.to_text(namespace),
        };
        // A watch after a bridge that has consumed nothing begins at the floor, which may have risen.
        let is_beginning = current.is_origin() && end.is_removed(self.from);
        if self.from != current && !is_beginning {
            return Err(Error::ConsumptionChanged {
                bridge_id: id.to_string(),
                expected: text(self.from),
                current: text(current),
            });
        }
        if !end.has(self.through) {
            let oldest = end.floor.unwrap_or_default();
            let oldest_position = oldest.to_text(namespace);
            return Err(Error::ConsumedRowGone { oldest_position });
        }
        if self.through.xid >= end.horizon && !end.is_removed(self.through) {
            return Err(Error::ConsumptionAhead {
                bridge_id: id.to_string(),
                through: text(self.through),
            });
        }
        Ok(())
    }
}

impl Bridge {
    /// Returns the position through which the bridge has consumed, if it consumes.
    #[must_use]
    pub fn consumed(&self) -> Option<Position> {
        Some(Position {
            xid: self.consumed_xid?.0,
            seq: self.consumed_seq?,
            transition_id: self.consumed_transition_id?,
        })
    }

    pub(super) fn consume(&mut self, through: Position, digest: RequestDigest) {
        self.consumed_xid = Some(Xid(through.xid));
        self.consumed_seq = Some(through.seq);
        self.consumed_transition_id = Some(through.transition_id);
        self.consumed_digest = Some(digest);
    }
}

/// A bridge, and how far it is behind the journal.
#[derive(Debug, Clone)]
pub struct BridgeView {
    /// The bridge.
    pub bridge: Bridge,
    /// Number of rows of the journal that the bridge has not consumed, at most
    /// [`MAX_LAG`](Self::MAX_LAG); unset if it consumes none.
    pub consumer_lag: Option<i64>,
}

impl BridgeView {
    /// The number up to which the rows of the journal are counted. It takes less than a
    /// millisecond.
    pub const MAX_LAG: i64 = 1000;

    /// Counts the rows of the journal that a bridge has not consumed. `newest` has the newest
    /// [`MAX_LAG`](Self::MAX_LAG) ones, the last one first.
    #[must_use]
    pub fn new(bridge: Bridge, newest: &[(Xid, i64)]) -> Self {
        let lag = bridge.consumed().map(|consumed| {
            let is_behind = |(xid, seq): &(Xid, i64)| (xid.0, *seq) > (consumed.xid, consumed.seq);
            newest.partition_point(is_behind)
        });
        BridgeView {
            consumer_lag: lag.and_then(|lag| i64::try_from(lag).ok()),
            bridge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_has_a_row_by_its_id_or_had_it_below_the_floor() {
        let through = Position::for_test(7, 20, 1);
        let end = |row, floor| JournalEnd {
            row,
            floor,
            horizon: 0,
        };
        assert!(end(Some(through), None).has(through));
        assert!(end(None, Some(Position::for_test(7, 20, 9))).has(through));
        assert!(end(None, Some(Position::for_test(8, 3, 9))).has(through));
        assert!(!end(None, None).has(through));
        assert!(!end(None, Some(Position::for_test(7, 19, 9))).has(through));
        // Another row got the id, or the numbers, after a failover.
        assert!(!end(Some(Position::for_test(8, 20, 1)), None).has(through));
        assert!(!end(Some(Position::for_test(7, 20, 2)), None).has(through));
    }
}
