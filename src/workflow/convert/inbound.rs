//! Requests. Every violation is collected.

use std::mem;

use crate::{
    digest::RequestDigest,
    id::{StampId, StepId, TransitionId, WorkflowId},
    items::{many, single},
    namespace::TenantRequest,
    page::PageRequest,
    proto::v1::{self, get_workflow_request::Key},
    tenant_requests, time,
    validate::{Checker, Violations},
    workflow::model::{
        Deletion, Move, NewStamp, NewStep, NewWorkflow, StampFilter, State, StepFilter, StepStatus,
        WorkflowFilter, WorkflowKey, WorkflowQuery,
    },
};

tenant_requests!(
    v1::TransitionWorkflowRequest,
    v1::GetWorkflowRequest,
    v1::ListWorkflowsRequest,
    v1::DeleteWorkflowRequest,
    v1::RecordStepRequest,
    v1::BatchRecordStepsRequest,
    v1::ListStepsRequest,
    v1::RecordStampRequest,
    v1::BatchRecordStampsRequest,
    v1::ListStampsRequest,
);

impl TenantRequest for v1::StartWorkflowRequest {
    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn correlation_id(&self) -> Option<&str> {
        Some(&self.correlation_id)
    }
}

/// The names that page tokens are bound to, beside their filters; GetWorkflow
/// makes tokens for these two.
pub(super) const LIST_STEPS: &str = "ListSteps";
pub(super) const LIST_STAMPS: &str = "ListStamps";

impl TryFrom<v1::StartWorkflowRequest> for NewWorkflow {
    type Error = Violations;

    fn try_from(mut request: v1::StartWorkflowRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let chosen_id = check.optional_id("id", &mem::take(&mut request.id));
        let correlation_id = check.id("correlation_id", &mem::take(&mut request.correlation_id));
        if request.current_state == 0 {
            request.current_state = v1::WorkflowState::Pending.into();
        }
        request.started_at = request.started_at.map(time::in_micros);
        request.metadata = request.metadata.filter(|document| !document.is_empty());
        let request_digest = RequestDigest::of(&request);
        let current_state = optional_state(&mut check, "current_state", request.current_state)
            .unwrap_or(State::Pending);
        if !current_state.is_initial() {
            check.violation("current_state", "must be PENDING or PROCESSING");
        }
        let new = NewWorkflow {
            is_id_chosen: chosen_id.is_some(),
            id: chosen_id.unwrap_or_else(WorkflowId::generate),
            correlation_id,
            workflow_type: check.name("workflow_type", request.workflow_type),
            current_state,
            started_at: check.optional_time("started_at", request.started_at.as_ref()),
            metadata: check.json("metadata", request.metadata),
            request_digest,
        };
        check.finish(new)
    }
}

impl TryFrom<v1::TransitionWorkflowRequest> for Move {
    type Error = Violations;

    fn try_from(mut request: v1::TransitionWorkflowRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let chosen_id = check.optional_id("transition_id", &mem::take(&mut request.transition_id));
        request.workflow_id.make_ascii_lowercase();
        request.transition_data = request
            .transition_data
            .filter(|document| !document.is_empty());
        request.metadata = request.metadata.filter(|document| !document.is_empty());
        let request_digest = RequestDigest::of(&request);
        let to_state = optional_state(&mut check, "to_state", request.to_state);
        if request.to_state == 0 {
            check.violation("to_state", "is required");
        }
        if let Some(to) = to_state.filter(|to| !to.has_error_message())
            && request.error_message.is_some()
        {
            let rule = "may be given only with FAILED and CANCELLED, not with";
            check.violation("error_message", format!("{rule} {}", to.as_str()));
        }
        let wanted = Move {
            workflow_id: check.id("workflow_id", &request.workflow_id),
            to_state: to_state.unwrap_or(State::Pending),
            expected_state: optional_state(&mut check, "expected_state", request.expected_state),
            is_id_chosen: chosen_id.is_some(),
            id: chosen_id.unwrap_or_else(TransitionId::generate),
            transition_event: check.optional_name("transition_event", request.transition_event),
            transition_data: check.json("transition_data", request.transition_data),
            error_message: check.optional_message("error_message", request.error_message),
            metadata_patch: check.json("metadata", request.metadata),
            request_digest,
        };
        check.finish(wanted)
    }
}

impl TryFrom<v1::GetWorkflowRequest> for WorkflowQuery {
    type Error = Violations;

    fn try_from(request: v1::GetWorkflowRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let key = match request.key {
            Some(Key::Id(id)) => WorkflowKey::Id(check.id("id", &id)),
            Some(Key::CorrelationId(id)) => {
                WorkflowKey::CorrelationId(check.id("correlation_id", &id))
            }
            None => {
                check.violation("key", "is required: id or correlation_id");
                WorkflowKey::Id(WorkflowId::default())
            }
        };
        let include_stamps = request.include_stamps;
        check.finish(WorkflowQuery {
            key,
            include_stamps,
        })
    }
}

impl TryFrom<v1::ListWorkflowsRequest> for WorkflowFilter {
    type Error = Violations;

    fn try_from(mut request: v1::ListWorkflowsRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let size = mem::take(&mut request.page_size);
        let token = mem::take(&mut request.page_token);
        let page = PageRequest::read(&mut check, size, &token, "ListWorkflows", &request);
        let filter = WorkflowFilter {
            states: states(&mut check, &request.states),
            workflow_type: check.optional_name("workflow_type", request.workflow_type),
            started_after: check.optional_time("started_after", request.started_after.as_ref()),
            started_before: check.optional_time("started_before", request.started_before.as_ref()),
            started_within_micros: check.optional_within("started_within", request.started_within),
            metadata: check.json("metadata", request.metadata),
            page,
        };
        check.finish(filter)
    }
}

impl TryFrom<v1::DeleteWorkflowRequest> for Deletion {
    type Error = Violations;

    fn try_from(request: v1::DeleteWorkflowRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let deletion = Deletion {
            id: TransitionId::generate(),
            workflow_id: check.id("workflow_id", &request.workflow_id),
            allow_missing: request.allow_missing,
        };
        check.finish(deletion)
    }
}

impl TryFrom<v1::RecordStepRequest> for NewStep {
    type Error = Violations;

    fn try_from(request: v1::RecordStepRequest) -> Result<Self, Violations> {
        single(request.step, "step", new_step)
    }
}

impl TryFrom<v1::BatchRecordStepsRequest> for Vec<Result<NewStep, Violations>> {
    type Error = Violations;

    fn try_from(request: v1::BatchRecordStepsRequest) -> Result<Self, Violations> {
        many(request.steps, "steps", new_step)
    }
}

impl TryFrom<v1::ListStepsRequest> for StepFilter {
    type Error = Violations;

    fn try_from(request: v1::ListStepsRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let workflow_id = check.id("workflow_id", &request.workflow_id);
        let filters = steps_of(&request.namespace, workflow_id);
        let page = PageRequest::read(
            &mut check,
            request.page_size,
            &request.page_token,
            LIST_STEPS,
            &filters,
        );
        check.finish(StepFilter { workflow_id, page })
    }
}

impl TryFrom<v1::RecordStampRequest> for NewStamp {
    type Error = Violations;

    fn try_from(request: v1::RecordStampRequest) -> Result<Self, Violations> {
        single(request.stamp, "stamp", new_stamp)
    }
}

impl TryFrom<v1::BatchRecordStampsRequest> for Vec<Result<NewStamp, Violations>> {
    type Error = Violations;

    fn try_from(request: v1::BatchRecordStampsRequest) -> Result<Self, Violations> {
        many(request.stamps, "stamps", new_stamp)
    }
}

impl TryFrom<v1::ListStampsRequest> for StampFilter {
    type Error = Violations;

    fn try_from(mut request: v1::ListStampsRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let workflow_id: Option<WorkflowId> =
            check.optional_id("workflow_id", &request.workflow_id);
        let size = mem::take(&mut request.page_size);
        let token = mem::take(&mut request.page_token);
        request.workflow_id = workflow_id.map(|id| id.to_string()).unwrap_or_default();
        let page = PageRequest::read(&mut check, size, &token, LIST_STAMPS, &request);
        let filter = StampFilter {
            file_hash: check.optional_file_hash("file_hash", request.file_hash),
            workflow_id,
            created_after: check.optional_time("created_after", request.created_after.as_ref()),
            created_before: check.optional_time("created_before", request.created_before.as_ref()),
            page,
        };
        check.finish(filter)
    }
}

/// The ListSteps query for the steps of one workflow, without its page: what its
/// page tokens are bound to.
pub(super) fn steps_of(namespace: &str, workflow_id: WorkflowId) -> v1::ListStepsRequest {
    v1::ListStepsRequest {
        namespace: namespace.to_owned(),
        workflow_id: workflow_id.to_string(),
        ..v1::ListStepsRequest::default()
    }
}

/// The ListStamps query for the stamps of one workflow, without its page.
pub(super) fn stamps_of(namespace: &str, workflow_id: WorkflowId) -> v1::ListStampsRequest {
    v1::ListStampsRequest {
        namespace: namespace.to_owned(),
        workflow_id: workflow_id.to_string(),
        ..v1::ListStampsRequest::default()
    }
}

fn new_step(field: &str, mut step: v1::NewStep) -> Result<NewStep, Violations> {
    let mut check = Checker::within(field);
    let chosen_id = check.optional_id("id", &mem::take(&mut step.id));
    step.workflow_id.make_ascii_lowercase();
    step.step_data = step.step_data.filter(|document| !document.is_empty());
    let request_digest = RequestDigest::of(&step);
    if step.step_order < 0 {
        check.violation("step_order", "must not be negative");
    }
    let new = NewStep {
        is_id_chosen: chosen_id.is_some(),
        id: chosen_id.unwrap_or_else(StepId::generate),
        workflow_id: check.id("workflow_id", &step.workflow_id),
        step_name: check.line("step_name", step.step_name),
        step_order: step.step_order,
        status: step_status(&mut check, "status", step.status),
        execution_time_ms: check.optional_count("execution_time_ms", step.execution_time_ms),
        step_data: check.json("step_data", step.step_data),
        error_message: check.optional_message("error_message", step.error_message),
        request_digest,
    };
    check.finish(new)
}

fn new_stamp(field: &str, mut stamp: v1::NewStamp) -> Result<NewStamp, Violations> {
    let mut check = Checker::within(field);
    let chosen_id = check.optional_id("id", &mem::take(&mut stamp.id));
    stamp.workflow_id.make_ascii_lowercase();
    stamp.stamp_data = stamp.stamp_data.filter(|document| !document.is_empty());
    let request_digest = RequestDigest::of(&stamp);
    let new = NewStamp {
        is_id_chosen: chosen_id.is_some(),
        id: chosen_id.unwrap_or_else(StampId::generate),
        workflow_id: check.optional_id("workflow_id", &stamp.workflow_id),
        file_hash: check.file_hash("file_hash", stamp.file_hash),
        stamp_data: check.json("stamp_data", stamp.stamp_data),
        request_digest,
    };
    check.finish(new)
}

fn optional_state(check: &mut Checker, field: &str, number: i32) -> Option<State> {
    match v1::WorkflowState::try_from(number) {
        Ok(v1::WorkflowState::Unspecified) => None,
        Ok(v1::WorkflowState::Pending) => Some(State::Pending),
        Ok(v1::WorkflowState::Processing) => Some(State::Processing),
        Ok(v1::WorkflowState::Completed) => Some(State::Completed),
        Ok(v1::WorkflowState::Failed) => Some(State::Failed),
        Ok(v1::WorkflowState::Cancelled) => Some(State::Cancelled),
        Err(_) => {
            check.violation(field, format!("must be a WorkflowState, not {number}"));
            None
        }
    }
}

fn states(check: &mut Checker, numbers: &[i32]) -> Vec<State> {
    let mut states = Vec::new();
    for (index, number) in numbers.iter().enumerate() {
        let field = format!("states[{index}]");
        match optional_state(check, &field, *number) {
            Some(state) if states.contains(&state) => {}
            Some(state) => states.push(state),
            None => {
                if *number == 0 {
                    check.violation(&field, "must not be unspecified");
                }
                break;
            }
        }
        // All there are; a million repetitions say no more.
        if states.len() == State::ALL.len() {
            break;
        }
    }
    states
}

fn step_status(check: &mut Checker, field: &str, number: i32) -> StepStatus {
    match v1::StepStatus::try_from(number) {
        Ok(v1::StepStatus::Pending) => return StepStatus::Pending,
        Ok(v1::StepStatus::Processing) => return StepStatus::Processing,
        Ok(v1::StepStatus::Completed) => return StepStatus::Completed,
        Ok(v1::StepStatus::Failed) => return StepStatus::Failed,
        Ok(v1::StepStatus::Skipped) => return StepStatus::Skipped,
        Ok(v1::StepStatus::Unspecified) => check.violation(field, "is required"),
        Err(_) => check.violation(field, format!("must be a StepStatus, not {number}")),
    }
    StepStatus::default()
}
