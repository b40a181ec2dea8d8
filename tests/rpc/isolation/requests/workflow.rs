//! Requests of WorkflowService.

use bridgebook::proto::v1::{self, get_workflow_request::Key};

use super::Asked;

impl Asked<'_> {
    pub(super) fn start(&self) -> v1::StartWorkflowRequest {
        v1::StartWorkflowRequest {
            namespace: self.namespace(),
            correlation_id: self.id(),
            id: self.maybe_id(),
            workflow_type: self.by.name("type"),
            metadata: self.by.document(self.call.state),
            ..Default::default()
        }
    }

    pub(super) fn move_workflow(&self) -> v1::TransitionWorkflowRequest {
        let states = [
            v1::WorkflowState::Failed,
            v1::WorkflowState::Processing,
            v1::WorkflowState::Cancelled,
        ];
        v1::TransitionWorkflowRequest {
            namespace: self.namespace(),
            workflow_id: self.id(),
            to_state: states[self.call.state].into(),
            transition_id: self.maybe_move_id(0),
            transition_event: self.by.name("move"),
            transition_data: self.by.document(1),
            metadata: self.by.document(2),
            ..Default::default()
        }
    }

    pub(super) fn get_workflow(&self) -> v1::GetWorkflowRequest {
        let key = match self.has(0) {
            true => Key::CorrelationId(self.id()),
            false => Key::Id(self.id()),
        };
        v1::GetWorkflowRequest {
            namespace: self.namespace(),
            key: Some(key),
            include_stamps: true,
        }
    }

    pub(super) fn list_workflows(&self) -> v1::ListWorkflowsRequest {
        v1::ListWorkflowsRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            ..Default::default()
        }
    }

    pub(super) fn delete_workflow(&self) -> v1::DeleteWorkflowRequest {
        v1::DeleteWorkflowRequest {
            namespace: self.namespace(),
            workflow_id: self.id(),
            allow_missing: self.has(0),
        }
    }

    pub(super) fn step(&self, id: String, workflow_id: String) -> v1::NewStep {
        v1::NewStep {
            id,
            workflow_id,
            step_name: self.by.name("step"),
            status: v1::StepStatus::Failed.into(),
            step_data: self.by.document(self.call.state),
            error_message: Some(self.by.name("why")),
            ..Default::default()
        }
    }

    pub(super) fn record_step(&self) -> v1::RecordStepRequest {
        v1::RecordStepRequest {
            namespace: self.namespace(),
            step: Some(self.step(self.maybe_id(), self.id())),
        }
    }

    pub(super) fn record_steps(&self) -> v1::BatchRecordStepsRequest {
        let ids = &self.pools.ids;
        let steps = ids.iter().map(|id| self.step(self.maybe_id(), id.clone()));
        v1::BatchRecordStepsRequest {
            namespace: self.namespace(),
            steps: steps.collect(),
        }
    }

    pub(super) fn list_steps(&self) -> v1::ListStepsRequest {
        v1::ListStepsRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            workflow_id: self.id(),
        }
    }

    pub(super) fn stamp(&self, id: String, workflow_id: String) -> v1::NewStamp {
        v1::NewStamp {
            id,
            workflow_id,
            file_hash: self.by.name("hash"),
            stamp_data: self.by.document(self.call.state),
        }
    }

    pub(super) fn record_stamp(&self) -> v1::RecordStampRequest {
        let workflow_id = if self.has(1) {
            String::new()
        } else {
            self.id()
        };
        v1::RecordStampRequest {
            namespace: self.namespace(),
            stamp: Some(self.stamp(self.maybe_id(), workflow_id)),
        }
    }

    pub(super) fn record_stamps(&self) -> v1::BatchRecordStampsRequest {
        let ids = &self.pools.ids;
        let stamps = ids.iter().map(|id| self.stamp(self.maybe_id(), id.clone()));
        v1::BatchRecordStampsRequest {
            namespace: self.namespace(),
            stamps: stamps.collect(),
        }
    }

    pub(super) fn list_stamps(&self) -> v1::ListStampsRequest {
        v1::ListStampsRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            workflow_id: if self.has(0) {
                self.id()
            } else {
                String::new()
            },
            ..Default::default()
        }
    }
}
