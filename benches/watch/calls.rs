//! The calls whose cost is measured.

use std::sync::atomic::{AtomicU64, Ordering};

use bridgebook::proto::v1::{
    NewTransition, RecordTransitionRequest, RecordTransitionResponse, StartWorkflowRequest,
    StartWorkflowResponse, fsm_service_server, workflow_service_server,
};
use uuid::Uuid;

use crate::{
    Result,
    load::Call,
    writers::{ENTITY_TYPE, entity_id},
};

/// The namespace of the calls.
pub const NAMESPACE: &str = "written";
/// The entities that RecordTransition moves: enough for little contention.
const ENTITIES: u64 = 20_000;

/// StartWorkflow.
pub struct Start;

impl Call for Start {
    type Request = StartWorkflowRequest;
    type Response = StartWorkflowResponse;
    const SERVICE: &'static str = workflow_service_server::SERVICE_NAME;
    const METHOD: &'static str = "StartWorkflow";
    const TITLE: &'static str = "StartWorkflow";

    fn request(&self) -> StartWorkflowRequest {
        StartWorkflowRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_type: "watched".to_owned(),
            correlation_id: Uuid::now_v7().to_string(),
            ..StartWorkflowRequest::default()
        }
    }

    fn check(&self, response: StartWorkflowResponse) -> Result<()> {
        match response.created {
            true => Ok(()),
            false => Err("the workflow was not created".into()),
        }
    }
}

/// RecordTransition of one entity after the other.
#[derive(Default)]
pub struct Record(AtomicU64);

impl Call for Record {
    type Request = RecordTransitionRequest;
    type Response = RecordTransitionResponse;
    const SERVICE: &'static str = fsm_service_server::SERVICE_NAME;
    const METHOD: &'static str = "RecordTransition";
    const TITLE: &'static str = "RecordTransition";

    fn request(&self) -> RecordTransitionRequest {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        RecordTransitionRequest {
            namespace: NAMESPACE.to_owned(),
            transition: Some(NewTransition {
                transition_id: Uuid::now_v7().to_string(),
                entity_type: ENTITY_TYPE.to_owned(),
                entity_id: entity_id(0, number % ENTITIES).to_string(),
                to_state: "RUNNING".to_owned(),
                transition_event: "progress".to_owned(),
                ..NewTransition::default()
            }),
        }
    }

    fn check(&self, response: RecordTransitionResponse) -> Result<()> {
        match response.applied {
            true => Ok(()),
            false => Err("the move was already applied".into()),
        }
    }
}
