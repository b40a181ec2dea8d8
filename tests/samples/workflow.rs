//! Samples of WorkflowService.

use bridgebook::proto::Rpc;
use serde_json::{Value, json};

use super::Sample;

pub fn sample(rpc: Rpc) -> Option<Sample> {
    let sample = match rpc {
        Rpc::WorkflowServiceStartWorkflow => Sample::new(json!({
            "correlation_id": "+correlation",
            "id": "+workflow",
            "workflow_type": "~type",
            "current_state": null,
            "metadata": {"text": "~metadata"},
        }))
        .or(json!({"id": ""}))
        .or(json!({"metadata": {"text": "~other"}}))
        .or(json!({"current_state": "WORKFLOW_STATE_PROCESSING"}))
        .makes(&["workflow", "correlation"]),
        Rpc::WorkflowServiceTransitionWorkflow => transition_workflow(),
        Rpc::WorkflowServiceGetWorkflow => {
            Sample::new(json!({"id": "$workflow", "include_stamps": true}))
                .or(json!({"id": null, "correlation_id": "$correlation"}))
                .missing("WORKFLOW_NOT_FOUND")
        }
        Rpc::WorkflowServiceListWorkflows => Sample::new(json!({})),
        Rpc::WorkflowServiceDeleteWorkflow => Sample::new(json!({"workflow_id": "$workflow"}))
            .or(json!({"allow_missing": true}))
            .missing("WORKFLOW_NOT_FOUND"),
        Rpc::WorkflowServiceRecordStep => step("step", step_item()).makes(&["step"]),
        Rpc::WorkflowServiceBatchRecordSteps => step("steps", json!([step_item()])),
        Rpc::WorkflowServiceListSteps => {
            Sample::new(json!({"workflow_id": "$workflow"})).missing("WORKFLOW_NOT_FOUND")
        }
        Rpc::WorkflowServiceRecordStamp => stamp("stamp", stamp_item()).makes(&["stamp"]),
        Rpc::WorkflowServiceBatchRecordStamps => stamp("stamps", json!([stamp_item()])),
        Rpc::WorkflowServiceListStamps => {
            Sample::new(json!({})).or(json!({"workflow_id": "$workflow"}))
        }
        _ => return None,
    };
    Some(sample)
}

/// An error_message is valid only with a state that ends in failure.
fn transition_workflow() -> Sample {
    Sample::new(json!({
        "workflow_id": "$workflow",
        "to_state": "WORKFLOW_STATE_PROCESSING",
        "expected_state": null,
        "transition_id": "+transition",
        "transition_event": "~move",
        "transition_data": {"text": "~data"},
        "error_message": null,
        "metadata": {"text": "~metadata"},
    }))
    .or(json!({"transition_id": ""}))
    .or(json!({"to_state": "WORKFLOW_STATE_COMPLETED"}))
    .or(json!({"to_state": "WORKFLOW_STATE_CANCELLED"}))
    .or(json!({"to_state": "WORKFLOW_STATE_FAILED", "error_message": "~why"}))
    .or(json!({"expected_state": "WORKFLOW_STATE_PENDING"}))
    .missing("WORKFLOW_NOT_FOUND")
}

fn step_item() -> Value {
    json!({
        "id": "+step",
        "workflow_id": "$workflow",
        "step_name": "~step",
        "status": "STEP_STATUS_COMPLETED",
        "step_data": {"text": "~data"},
    })
}

fn step(field: &str, items: Value) -> Sample {
    Sample::new(json!({ field: items }))
        .or(json!({field: {"id": ""}}))
        .or(json!({field: {"status": "STEP_STATUS_FAILED", "error_message": "~why"}}))
        .or(json!({field: {"step_data": {"text": "~other"}}}))
        .missing("WORKFLOW_NOT_FOUND")
}

fn stamp_item() -> Value {
    json!({
        "id": "+stamp",
        "workflow_id": "$workflow",
        "file_hash": "~hash",
        "stamp_data": {"text": "~data"},
    })
}

fn stamp(field: &str, items: Value) -> Sample {
    Sample::new(json!({ field: items }))
        .or(json!({field: {"id": ""}}))
        .or(json!({field: {"workflow_id": ""}}))
        .or(json!({field: {"stamp_data": {"text": "~other"}}}))
        .missing("WORKFLOW_NOT_FOUND")
}
