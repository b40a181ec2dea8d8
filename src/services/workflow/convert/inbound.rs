//! Converts requests to domain types, and collects every violation.

use std::mem;

use crate::{
    domain::{
        digest::RequestDigest,
        id::{TransitionId, WorkflowId},
        json::Struct,
        time,
        violation::Violations,
    },
    proto::v1::{self, get_workflow_request::Key},
    rpc::{
        admit::FromRequest,
        batch_request::{parse_item, parse_items},
        page_token::read_page,
        validate::{ProtoEnum, Validator, proto_enum},
    },
    services::{
        convert::take_id,
        workflow::model::{
            Deletion, Move, NewStamp, NewStep, NewWorkflow, StampFilter, State, StepFilter,
            StepStatus, WorkflowFilter, WorkflowKey, WorkflowQuery,
        },
    },
};

proto_enum!(State = v1::WorkflowState {
    Pending = Pending,
    Processing = Processing,
    Completed = Completed,
    Failed = Failed,
    Cancelled = Cancelled,
});

proto_enum!(StepStatus = v1::StepStatus {
    Pending = Pending,
    Processing = Processing,
    Completed = Completed,
    Failed = Failed,
    Skipped = Skipped,
});

impl FromRequest<v1::StartWorkflowRequest> for NewWorkflow {
    fn from_request(mut request: v1::StartWorkflowRequest, check: &mut Validator) -> Self {
        let (id, is_id_chosen) = take_id(check, "id", &mut request.id);
        let correlation_id = check.id("correlation_id", &mem::take(&mut request.correlation_id));
        if request.current_state == 0 {
            request.current_state = v1::WorkflowState::Pending.into();
        }
        request.started_at = request.started_at.map(time::truncate_to_micros);
        Struct::unset_if_empty(&mut request.metadata);
        let request_digest = RequestDigest::of(&request);
        let current_state = check.optional_enum("current_state", request.current_state);
        let current_state = current_state.unwrap_or(State::Pending);
        if !current_state.is_initial() {
            let [pending, processing, state] =
                [State::Pending, State::Processing, current_state].map(State::proto_name);
            let rule = format!("must be {pending} or {processing}, got {state}");
            check.violation("current_state", rule);
        }
        NewWorkflow {
            id,
            is_id_chosen,
            transition_id: TransitionId::generate(),
            correlation_id,
            workflow_type: check.name("workflow_type", request.workflow_type),
            current_state,
            started_at: check.optional_time("started_at", request.started_at.as_ref()),
            metadata: check.json("metadata", request.metadata),
            request_digest,
        }
    }
}

impl FromRequest<v1::TransitionWorkflowRequest> for Move {
    fn from_request(mut request: v1::TransitionWorkflowRequest, check: &mut Validator) -> Self {
        let (id, is_id_chosen) = take_id(check, "transition_id", &mut request.transition_id);
        request.workflow_id.make_ascii_lowercase();
        Struct::unset_if_empty(&mut request.transition_data);
        Struct::unset_if_empty(&mut request.metadata);
        let request_digest = RequestDigest::of(&request);
        let to_state = check.required_enum("to_state", request.to_state, State::Pending);
        let is_known = State::from_number(request.to_state).is_some();
        if is_known && !to_state.has_error_message() && request.error_message.is_some() {
            let [failed, cancelled, state] =
                [State::Failed, State::Cancelled, to_state].map(State::proto_name);
            let rule = format!("must be unset unless to_state is {failed} or {cancelled}");
            check.violation("error_message", format!("{rule}; it is {state}"));
        }
        Move {
            workflow_id: check.id("workflow_id", &request.workflow_id),
            to_state,
            expected_state: check.optional_enum("expected_state", request.expected_state),
            id,
            is_id_chosen,
            transition_event: check.optional_name("transition_event", request.transition_event),
            transition_data: check.json("transition_data", request.transition_data),
            error_message: check.optional_message("error_message", request.error_message),
            metadata_patch: check.json("metadata", request.metadata),
            request_digest,
        }
    }
}

impl FromRequest<v1::GetWorkflowRequest> for WorkflowQuery {
    fn from_request(request: v1::GetWorkflowRequest, check: &mut Validator) -> Self {
        let key = match request.key {
            Some(Key::Id(id)) => WorkflowKey::Id(check.id("id", &id)),
            Some(Key::CorrelationId(id)) => {
                WorkflowKey::CorrelationId(check.id("correlation_id", &id))
            }
            None => {
                check.violation("key", "is required: set id or correlation_id");
                WorkflowKey::Id(WorkflowId::default())
            }
        };
        let include_stamps = request.include_stamps;
        WorkflowQuery {
            key,
            include_stamps,
        }
    }
}

impl FromRequest<v1::ListWorkflowsRequest> for WorkflowFilter {
    fn from_request(mut request: v1::ListWorkflowsRequest, check: &mut Validator) -> Self {
        let page = read_page(check, &mut request);
        WorkflowFilter {
            states: check.enum_set("states", &request.states),
            workflow_type: check.optional_stored_name("workflow_type", request.workflow_type),
            started_after: check.optional_time("started_after", request.started_after.as_ref()),
            started_before: check
                .optional_upper_bound("started_before", request.started_before.as_ref()),
            started_within_micros: check.optional_within("started_within", request.started_within),
            metadata: check.json_filter("metadata", request.metadata),
            page,
        }
    }
}

impl FromRequest<v1::DeleteWorkflowRequest> for Deletion {
    fn from_request(request: v1::DeleteWorkflowRequest, check: &mut Validator) -> Self {
        Deletion {
            id: TransitionId::generate(),
            workflow_id: check.id("workflow_id", &request.workflow_id),
            allow_missing: request.allow_missing,
        }
    }
}

impl FromRequest<v1::RecordStepRequest> for NewStep {
    fn from_request(request: v1::RecordStepRequest, check: &mut Validator) -> Self {
        parse_item(request.step, "step", check, new_step)
    }
}

impl FromRequest<v1::BatchRecordStepsRequest> for Vec<Result<NewStep, Violations>> {
    fn from_request(request: v1::BatchRecordStepsRequest, check: &mut Validator) -> Self {
        parse_items(request.steps, "steps", check, new_step)
    }
}

impl FromRequest<v1::ListStepsRequest> for StepFilter {
    fn from_request(mut request: v1::ListStepsRequest, check: &mut Validator) -> Self {
        let workflow_id: WorkflowId = check.id("workflow_id", &request.workflow_id);
        request.workflow_id = workflow_id.to_string();
        let page = read_page(check, &mut request);
        StepFilter { workflow_id, page }
    }
}

impl FromRequest<v1::RecordStampRequest> for NewStamp {
    fn from_request(request: v1::RecordStampRequest, check: &mut Validator) -> Self {
        parse_item(request.stamp, "stamp", check, new_stamp)
    }
}

impl FromRequest<v1::BatchRecordStampsRequest> for Vec<Result<NewStamp, Violations>> {
    fn from_request(request: v1::BatchRecordStampsRequest, check: &mut Validator) -> Self {
        parse_items(request.stamps, "stamps", check, new_stamp)
    }
}

impl FromRequest<v1::ListStampsRequest> for StampFilter {
    fn from_request(mut request: v1::ListStampsRequest, check: &mut Validator) -> Self {
        let workflow_id: Option<WorkflowId> =
            check.optional_id("workflow_id", &request.workflow_id);
        request.workflow_id = workflow_id.map(|id| id.to_string()).unwrap_or_default();
        let page = read_page(check, &mut request);
        StampFilter {
            file_hash: check.optional_file_hash("file_hash", request.file_hash),
            workflow_id,
            created_after: check.optional_time("created_after", request.created_after.as_ref()),
            created_before: check
                .optional_upper_bound("created_before", request.created_before.as_ref()),
            page,
        }
    }
}

/// Returns the ListSteps request for the steps of one workflow, without paging fields.
/// GetWorkflow binds its page tokens to it.
pub(super) fn steps_of(namespace: &str, workflow_id: WorkflowId) -> v1::ListStepsRequest {
    v1::ListStepsRequest {
        namespace: namespace.to_owned(),
        workflow_id: workflow_id.to_string(),
        ..v1::ListStepsRequest::default()
    }
}

/// Returns the ListStamps request for the stamps of one workflow, without paging fields.
pub(super) fn stamps_of(namespace: &str, workflow_id: WorkflowId) -> v1::ListStampsRequest {
    v1::ListStampsRequest {
        namespace: namespace.to_owned(),
        workflow_id: workflow_id.to_string(),
        ..v1::ListStampsRequest::default()
    }
}

fn new_step(mut step: v1::NewStep, check: &mut Validator) -> NewStep {
    let (id, is_id_chosen) = take_id(check, "id", &mut step.id);
    step.workflow_id.make_ascii_lowercase();
    Struct::unset_if_empty(&mut step.step_data);
    let request_digest = RequestDigest::of(&step);
    NewStep {
        id,
        is_id_chosen,
        workflow_id: check.id("workflow_id", &step.workflow_id),
        step_name: check.name("step_name", step.step_name),
        step_order: check.count("step_order", step.step_order),
        status: check.required_enum("status", step.status, StepStatus::default()),
        execution_time_ms: check.optional_count("execution_time_ms", step.execution_time_ms),
        step_data: check.json("step_data", step.step_data),
        error_message: check.optional_message("error_message", step.error_message),
        request_digest,
    }
}

fn new_stamp(mut stamp: v1::NewStamp, check: &mut Validator) -> NewStamp {
    let (id, is_id_chosen) = take_id(check, "id", &mut stamp.id);
    stamp.workflow_id.make_ascii_lowercase();
    Struct::unset_if_empty(&mut stamp.stamp_data);
    let request_digest = RequestDigest::of(&stamp);
    NewStamp {
        id,
        is_id_chosen,
        workflow_id: check.optional_id("workflow_id", &stamp.workflow_id),
        file_hash: check.file_hash("file_hash", stamp.file_hash),
        stamp_data: check.json("stamp_data", stamp.stamp_data),
        request_digest,
    }
}
