//! The requests of the tenants.

use std::net::SocketAddr;

use bridgebook::{
    domain::json::Struct,
    proto::v1::{
        BatchRecordStepsRequest, GetWorkflowRequest, ListStepsRequest, NewStep, RecordStepRequest,
        StartWorkflowRequest, StartWorkflowResponse, StepStatus, get_workflow_request::Key,
        workflow_service_server::SERVICE_NAME,
    },
};
use prost::{Message, bytes::Bytes};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Result,
    call::{call, connect, frame},
};

/// The number of steps of a batch, and of a page.
const MANY: i32 = 1000;

/// A request with the path of its RPC.
#[derive(Clone)]
pub struct Request {
    pub uri: http::Uri,
    pub message: Bytes,
}

/// A tenant with a workflow on a service.
pub struct Tenant {
    address: SocketAddr,
    namespace: String,
    workflow_id: String,
}

impl Tenant {
    /// Starts a workflow in a new namespace. `step_bytes` is the size of the document of each of
    /// its 1000 steps; 0 for no steps.
    pub async fn new(address: SocketAddr, step_bytes: usize) -> Result<Self> {
        let namespace = format!("tenant-{}", Uuid::now_v7());
        let start = StartWorkflowRequest {
            namespace: namespace.clone(),
            workflow_type: "fairness".to_owned(),
            correlation_id: Uuid::now_v7().to_string(),
            ..StartWorkflowRequest::default()
        };
        let mut tenant = Tenant {
            address,
            namespace,
            workflow_id: String::new(),
        };
        let connection = connect(address).await?;
        let Request { uri, message } = tenant.request("StartWorkflow", &start)?;
        let started = call(&connection, uri, None, message).await?;
        let workflow = StartWorkflowResponse::decode(started)?.workflow;
        tenant.workflow_id = workflow.unwrap_or_default().id;
        if step_bytes > 0 {
            let Request { uri, message } = tenant.batch(step_bytes)?;
            call(&connection, uri, None, message).await?;
        }
        Ok(tenant)
    }

    /// Returns a new RecordStep.
    pub fn step(&self) -> Result<Request> {
        let step = RecordStepRequest {
            namespace: self.namespace.clone(),
            step: Some(self.new_step(0, 40)),
        };
        self.request("RecordStep", &step)
    }

    /// Returns a new BatchRecordSteps of 1000 steps.
    pub fn batch(&self, step_bytes: usize) -> Result<Request> {
        let steps = (0..MANY).map(|order| self.new_step(order, step_bytes));
        let batch = BatchRecordStepsRequest {
            namespace: self.namespace.clone(),
            steps: steps.collect(),
        };
        self.request("BatchRecordSteps", &batch)
    }

    /// Returns a GetWorkflow.
    pub fn get(&self) -> Result<Request> {
        let get = GetWorkflowRequest {
            namespace: self.namespace.clone(),
            key: Some(Key::Id(self.workflow_id.clone())),
            include_stamps: false,
        };
        self.request("GetWorkflow", &get)
    }

    /// Returns a ListSteps of the first page.
    pub fn list(&self) -> Result<Request> {
        let list = ListStepsRequest {
            namespace: self.namespace.clone(),
            workflow_id: self.workflow_id.clone(),
            page_size: MANY,
            ..ListStepsRequest::default()
        };
        self.request("ListSteps", &list)
    }

    fn new_step(&self, step_order: i32, bytes: usize) -> NewStep {
        NewStep {
            workflow_id: self.workflow_id.clone(),
            step_name: "validate".to_owned(),
            step_order,
            status: StepStatus::Completed.into(),
            step_data: document(json!({ "text": "x".repeat(bytes) })),
            ..NewStep::default()
        }
    }

    fn request(&self, rpc: &str, message: &impl Message) -> Result<Request> {
        Ok(Request {
            uri: format!("http://{}/{SERVICE_NAME}/{rpc}", self.address).parse()?,
            message: frame(message)?,
        })
    }
}

fn document(value: Value) -> Option<Struct> {
    match value {
        Value::Object(fields) => Some(fields.into()),
        _ => None,
    }
}
