//! Converts domain types to responses, which cannot fail.

use std::sync::Arc;

use super::inbound::{stamps_of, steps_of};
use crate::{
    domain::{
        page::PageRow,
        page_token_key::PageTokenKey,
        position::Position,
        time,
        write_outcome::{Journaled, WriteOutcome},
    },
    proto::v1,
    rpc::page_token::token_for,
    services::{
        convert::responses,
        workflow::model::{Moved, Stamp, Step, Workflow, WorkflowDetails, WorkflowSummary},
    },
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
            // The codec leaves out what does not fit.
            omitted_fields: Vec::new(),
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
            // The codec leaves out what does not fit.
            omitted_fields: Vec::new(),
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
            // The codec leaves out what does not fit.
            omitted_fields: Vec::new(),
        }
    }
}

impl From<WriteOutcome<Journaled<Workflow>>> for v1::StartWorkflowResponse {
    fn from(outcome: WriteOutcome<Journaled<Workflow>>) -> Self {
        let Journaled { row, position } = outcome.row;
        v1::StartWorkflowResponse {
            position: Position::text_of(position, &row.namespace),
            workflow: Some(row.into()),
            created: outcome.created,
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

/// Converts a workflow with its first steps and stamps. `key` signs the page tokens with which
/// ListSteps and ListStamps continue.
pub fn get_workflow_response(
    details: Arc<WorkflowDetails>,
    key: PageTokenKey,
) -> v1::GetWorkflowResponse {
    let details = Arc::unwrap_or_clone(details);
    let Workflow { id, namespace, .. } = &details.workflow;
    let last_step = details.steps.last().filter(|_| details.has_more_steps);
    let last_stamp = details.stamps.last().filter(|_| details.has_more_stamps);
    v1::GetWorkflowResponse {
        next_steps_page_token: last_step
            .map(|step| token_for(key, &steps_of(namespace, *id), step.position()))
            .unwrap_or_default(),
        next_stamps_page_token: last_stamp
            .map(|stamp| token_for(key, &stamps_of(namespace, *id), stamp.position()))
            .unwrap_or_default(),
        workflow: Some(details.workflow.into()),
        steps: details.steps.into_iter().map(Into::into).collect(),
        stamps: details.stamps.into_iter().map(Into::into).collect(),
    }
}

impl From<WorkflowSummary> for v1::WorkflowSummary {
    fn from(summary: WorkflowSummary) -> Self {
        v1::WorkflowSummary {
            workflow: Some(summary.workflow.into()),
            step_count: summary.step_count,
            has_more_steps: summary.has_more_steps,
        }
    }
}

responses! {
    ListWorkflowsResponse { workflows: Page<WorkflowSummary> }
    DeleteWorkflowResponse { deleted: Deleted }
    RecordStepResponse { step: WriteOutcome<Step> }
    BatchRecordStepsResponse {
        results: RecordStepResult(record_step_result) from WriteOutcome<Step>
    }
    ListStepsResponse { steps: Page<Step> }
    RecordStampResponse { stamp: WriteOutcome<Stamp> }
    BatchRecordStampsResponse {
        results: RecordStampResult(record_stamp_result) from WriteOutcome<Stamp>
    }
    ListStampsResponse { stamps: Page<Stamp> }
}
