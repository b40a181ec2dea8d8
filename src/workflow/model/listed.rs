//! What rows have in common that stand in lists.

use super::{Stamp, Step, StepPosition, TimePosition, WorkflowSummary};
use crate::page::Position;

/// A row that can stand in a list.
pub trait Listed {
    /// By what rows are ordered.
    type Position: Position;

    /// Where it stands.
    fn position(&self) -> Self::Position;

    /// About how many bytes it takes in an answer.
    fn size(&self) -> usize;
}

/// What a row takes beside its documents and texts: ids, names and times.
const ROW_BYTES: usize = 400;

impl Listed for WorkflowSummary {
    type Position = TimePosition;

    fn position(&self) -> TimePosition {
        (self.workflow.started_at, self.workflow.id.0)
    }

    fn size(&self) -> usize {
        ROW_BYTES + self.workflow.metadata.wire_len() + length(self.workflow.error_message.as_ref())
    }
}

impl Listed for Step {
    type Position = StepPosition;

    fn position(&self) -> StepPosition {
        (self.step_order, self.id.0)
    }

    fn size(&self) -> usize {
        ROW_BYTES + self.step_data.wire_len() + length(self.error_message.as_ref())
    }
}

impl Listed for Stamp {
    type Position = TimePosition;

    fn position(&self) -> TimePosition {
        (self.created_at, self.id.0)
    }

    fn size(&self) -> usize {
        ROW_BYTES + self.stamp_data.wire_len()
    }
}

fn length(text: Option<&String>) -> usize {
    text.map_or(0, String::len)
}

/// Drops rows from the end until the first ones fit into so many bytes, but
/// never the first; answers how many bytes are left.
pub fn trim<T: Listed>(rows: &mut Vec<T>, room: usize) -> usize {
    let mut left = room;
    let fitting = rows
        .iter()
        .take_while(|row| match left.checked_sub(row.size()) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        });
    let fitting = fitting.count().max(1);
    rows.truncate(fitting);
    left
}
