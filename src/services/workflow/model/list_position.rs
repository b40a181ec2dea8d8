//! The positions and sizes of workflows, steps and stamps in lists.

use super::{Stamp, Step, StepPosition, Workflow, WorkflowDetails, WorkflowSummary};
use crate::domain::page::{PageRow, ROW_BYTES, TimePosition};

impl PageRow for WorkflowSummary {
    type Position = TimePosition;

    fn position(&self) -> TimePosition {
        (self.workflow.started_at, self.workflow.id.0)
    }

    fn size(&self) -> usize {
        self.workflow.size()
    }
}

impl Workflow {
    /// Returns the approximate size of the workflow in a response, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        ROW_BYTES
            + self.namespace.len()
            + self.metadata.wire_len()
            + length(self.error_message.as_ref())
    }
}

impl WorkflowDetails {
    /// Returns the approximate size of the workflow with its rows in a response, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let steps = self.steps.iter().map(PageRow::size);
        let stamps = self.stamps.iter().map(PageRow::size);
        self.workflow.size() + steps.chain(stamps).sum::<usize>()
    }
}

impl PageRow for Step {
    type Position = StepPosition;

    fn position(&self) -> StepPosition {
        (self.step_order, self.id.0)
    }

    fn size(&self) -> usize {
        ROW_BYTES
            + self.namespace.len()
            + self.step_data.wire_len()
            + length(self.error_message.as_ref())
    }
}

impl PageRow for Stamp {
    type Position = TimePosition;

    fn position(&self) -> TimePosition {
        (self.created_at, self.id.0)
    }

    fn size(&self) -> usize {
        ROW_BYTES + self.namespace.len() + self.stamp_data.wire_len()
    }
}

fn length(text: Option<&String>) -> usize {
    text.map_or(0, String::len)
}
