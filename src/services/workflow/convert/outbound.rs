//! Answers. Nothing here can fail.

use super::inbound::{stamps_of, steps_of};
use crate::{
    domain::{
        error::{Error, Result},
        page::{Page, PageRow, token_for},
        time,
        write_outcome::WriteOutcome,
    },
    proto::v1::{self, record_stamp_result, record_step_result},
    services::workflow::model::{Moved, Stamp, Step, Workflow, WorkflowDetails, WorkflowSummary},
};

impl From<Workflow> for v1::Workflow {
    fn from(row: Workflow) -> Self {
        v1::Workflow {
            id: row.id.to_string(),
            correlation_id: row.correlation_id.to_string(),
            namespace: row.namespace,
            workflow_type: row.workflow_type,
            current_state: v1::WorkflowState::from(row.current_state).into(),
            started_at: Some(time::to_proto(row.started_at)),
            completed_at: row.completed_at.map(time::to_proto),
            execution_time_ms: row.execution_time_ms,
            error_message: row.error_message,
            metadata: Some(row.metadata.into()),
            created_at: Some(time::to_proto(row.created_at)),
            updated_at: Some(time::to_proto(row.updated_at)),
        }
    }
}

impl From<Step> for v1::WorkflowStep {
    fn from(row: Step) -> Self {
        v1::WorkflowStep {
            id: row.id.to_string(),
            namespace: row.namespace,
            workflow_id: row.workflow_id.to_string(),
            step_name: row.step_name,
            step_order: row.step_order,
            status: v1::StepStatus::from(row.status).into(),
            execution_time_ms: row.execution_time_ms,
            step_data: Some(row.step_data.into()),
            error_message: row.error_message,
            created_at: Some(time::to_proto(row.created_at)),
        }
    }
}

impl From<Stamp> for v1::MetadataStamp {
    fn from(row: Stamp) -> Self {
        v1::MetadataStamp {
            id: row.id.to_string(),
            namespace: row.namespace,
            workflow_id: row.workflow_id.map(|id| id.to_string()),
            file_hash: row.file_hash,
            stamp_data: Some(row.stamp_data.into()),
            created_at: Some(time::to_proto(row.created_at)),
        }
    }
}

impl From<WriteOutcome<Workflow>> for v1::StartWorkflowResponse {
    fn from(recorded: WriteOutcome<Workflow>) -> Self {
        v1::StartWorkflowResponse {
            workflow: Some(recorded.row.into()),
            created: recorded.created,
        }
    }
}

impl From<Moved> for v1::TransitionWorkflowResponse {
    fn from(moved: Moved) -> Self {
        v1::TransitionWorkflowResponse {
            workflow: Some(moved.workflow.into()),
            transition: Some(moved.transition.into()),
            applied: moved.applied,
        }
    }
}

impl From<WorkflowDetails> for v1::GetWorkflowResponse {
    fn from(details: WorkflowDetails) -> Self {
        let Workflow { id, namespace, .. } = &details.workflow;
        let last_step = details.steps.last().filter(|_| details.has_more_steps);
        let last_stamp = details.stamps.last().filter(|_| details.has_more_stamps);
        v1::GetWorkflowResponse {
            next_steps_page_token: last_step
                .map(|step| token_for(&steps_of(namespace, *id), step.position()))
                .unwrap_or_default(),
            next_stamps_page_token: last_stamp
                .map(|stamp| token_for(&stamps_of(namespace, *id), stamp.position()))
                .unwrap_or_default(),
            workflow: Some(details.workflow.into()),
            steps: details.steps.into_iter().map(Into::into).collect(),
            stamps: details.stamps.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<WorkflowSummary> for v1::WorkflowSummary {
    fn from(summary: WorkflowSummary) -> Self {
        v1::WorkflowSummary {
            workflow: Some(summary.workflow.into()),
            step_count: summary.step_count,
        }
    }
}

impl From<Page<WorkflowSummary>> for v1::ListWorkflowsResponse {
    fn from(page: Page<WorkflowSummary>) -> Self {
        v1::ListWorkflowsResponse {
            workflows: page.rows.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }
    }
}

impl From<Page<Step>> for v1::ListStepsResponse {
    fn from(page: Page<Step>) -> Self {
        v1::ListStepsResponse {
            steps: page.rows.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }
    }
}

impl From<Page<Stamp>> for v1::ListStampsResponse {
    fn from(page: Page<Stamp>) -> Self {
        v1::ListStampsResponse {
            stamps: page.rows.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }
    }
}

impl From<bool> for v1::DeleteWorkflowResponse {
    fn from(deleted: bool) -> Self {
        v1::DeleteWorkflowResponse { deleted }
    }
}

impl From<WriteOutcome<Step>> for v1::RecordStepResponse {
    fn from(recorded: WriteOutcome<Step>) -> Self {
        v1::RecordStepResponse {
            step: Some(recorded.row.into()),
            created: recorded.created,
        }
    }
}

impl From<WriteOutcome<Stamp>> for v1::RecordStampResponse {
    fn from(recorded: WriteOutcome<Stamp>) -> Self {
        v1::RecordStampResponse {
            stamp: Some(recorded.row.into()),
            created: recorded.created,
        }
    }
}

impl From<Vec<Result<WriteOutcome<Step>, Error>>> for v1::BatchRecordStepsResponse {
    fn from(results: Vec<Result<WriteOutcome<Step>, Error>>) -> Self {
        let results = results.into_iter().map(|result| v1::RecordStepResult {
            result: Some(match result {
                Ok(recorded) => record_step_result::Result::Response(recorded.into()),
                Err(error) => record_step_result::Result::Error(error.into()),
            }),
        });
        v1::BatchRecordStepsResponse {
            results: results.collect(),
        }
    }
}

impl From<Vec<Result<WriteOutcome<Stamp>, Error>>> for v1::BatchRecordStampsResponse {
    fn from(results: Vec<Result<WriteOutcome<Stamp>, Error>>) -> Self {
        let results = results.into_iter().map(|result| v1::RecordStampResult {
            result: Some(match result {
                Ok(recorded) => record_stamp_result::Result::Response(recorded.into()),
                Err(error) => record_stamp_result::Result::Error(error.into()),
            }),
        });
        v1::BatchRecordStampsResponse {
            results: results.collect(),
        }
    }
}
