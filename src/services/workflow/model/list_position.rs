//! The positions and sizes of workflows, steps and stamps in lists.

use super::{Stamp, Step, StepPosition, WorkflowSummary};
use crate::domain::page::{PageRow, ROW_BYTES, TimePosition};

impl PageRow for WorkflowSummary {
    type Position = TimePosition;

    fn position(&self) -> TimePosition {
        (self.workflow.started_at, self.workflow.id.0)
    }

    fn size(&self) -> usize {
        ROW_BYTES + self.workflow.metadata.wire_len() + length(self.workflow.error_message.as_ref())
    }
}

impl PageRow for Step {
    type Position = StepPosition;

    fn position(&self) -> StepPosition {
        (self.step_order, self.id.0)
    }

    fn size(&self) -> usize {
        ROW_BYTES + self.step_data.wire_len() + length(self.error_message.as_ref())
    }
}

impl PageRow for Stamp {
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
