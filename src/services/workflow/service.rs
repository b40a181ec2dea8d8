//! The RPCs of WorkflowService.

use tonic::{Request, Response, Status};

use super::{
    convert::get_workflow_response,
    model::{StampFilter, StepFilter, WorkflowFilter},
    store::{
        DeleteWorkflows, GetWorkflows, MoveWorkflows, RecordStamps, RecordSteps, StartWorkflows,
    },
};
use crate::{
    db::{Database, batch::Batcher},
    domain::{error::Result, namespace::Scoped},
    proto::v1::{self, workflow_service_server::WorkflowService},
    rpc::{
        admit::admit,
        batch_request::{respond, respond_list, respond_page, submit_item, submit_valid},
        page_token,
    },
};

/// Serves `bridgebook.v1.WorkflowService`.
pub struct Workflows {
    database: Database,
    start: Batcher<StartWorkflows>,
    transition: Batcher<MoveWorkflows>,
    get: Batcher<GetWorkflows>,
    delete: Batcher<DeleteWorkflows>,
    steps: Batcher<RecordSteps>,
    stamps: Batcher<RecordStamps>,
}

impl Workflows {
    /// Makes the service and starts its batch writers. Needs a tokio runtime.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Workflows {
            start: Batcher::new(&database),
            transition: Batcher::new(&database),
            get: Batcher::new(&database),
            delete: Batcher::new(&database),
            steps: Batcher::new(&database),
            stamps: Batcher::new(&database),
            database,
        }
    }
}

#[tonic::async_trait]
impl WorkflowService for Workflows {
    async fn start_workflow(
        &self,
        request: Request<v1::StartWorkflowRequest>,
    ) -> Result<Response<v1::StartWorkflowResponse>, Status> {
        let new = admit(request)?;
        let outcome = self.start.submit_held(new).await?;
        Ok(respond(outcome, Into::into))
    }

    async fn transition_workflow(
        &self,
        request: Request<v1::TransitionWorkflowRequest>,
    ) -> Result<Response<v1::TransitionWorkflowResponse>, Status> {
        let wanted = admit(request)?;
        let moved = self.transition.submit_held(wanted).await?;
        Ok(respond(moved, Into::into))
    }

    async fn get_workflow(
        &self,
        request: Request<v1::GetWorkflowRequest>,
    ) -> Result<Response<v1::GetWorkflowResponse>, Status> {
        let key = page_token::key_of(&request)?;
        let query = admit(request)?;
        let details = self.get.submit_held(query).await?;
        let message = |details| get_workflow_response(details, key);
        Ok(respond_list(details, message, |message| &mut message.steps).await?)
    }

    async fn list_workflows(
        &self,
        request: Request<v1::ListWorkflowsRequest>,
    ) -> Result<Response<v1::ListWorkflowsResponse>, Status> {
        let filter: Scoped<WorkflowFilter> = admit(request)?;
        let page = self.database.run_held(&filter).await?;
        Ok(respond_page(page).await?)
    }

    async fn delete_workflow(
        &self,
        request: Request<v1::DeleteWorkflowRequest>,
    ) -> Result<Response<v1::DeleteWorkflowResponse>, Status> {
        let deletion = admit(request)?;
        let deleted = self.delete.submit(deletion).await?;
        Ok(Response::new(deleted.into()))
    }

    async fn record_step(
        &self,
        request: Request<v1::RecordStepRequest>,
    ) -> Result<Response<v1::RecordStepResponse>, Status> {
        let new = admit(request)?;
        let outcome = submit_item(&self.steps, "step", new).await?;
        Ok(Response::new(outcome.into()))
    }

    async fn batch_record_steps(
        &self,
        request: Request<v1::BatchRecordStepsRequest>,
    ) -> Result<Response<v1::BatchRecordStepsResponse>, Status> {
        let items = admit(request)?;
        let results = submit_valid(&self.steps, "steps", items).await?;
        Ok(results.into_response().await?)
    }

    async fn list_steps(
        &self,
        request: Request<v1::ListStepsRequest>,
    ) -> Result<Response<v1::ListStepsResponse>, Status> {
        let filter: Scoped<StepFilter> = admit(request)?;
        let page = self.database.run_held(&filter).await?;
        Ok(respond_page(page).await?)
    }

    async fn record_stamp(
        &self,
        request: Request<v1::RecordStampRequest>,
    ) -> Result<Response<v1::RecordStampResponse>, Status> {
        let new = admit(request)?;
        let outcome = submit_item(&self.stamps, "stamp", new).await?;
        Ok(Response::new(outcome.into()))
    }

    async fn batch_record_stamps(
        &self,
        request: Request<v1::BatchRecordStampsRequest>,
    ) -> Result<Response<v1::BatchRecordStampsResponse>, Status> {
        let items = admit(request)?;
        let results = submit_valid(&self.stamps, "stamps", items).await?;
        Ok(results.into_response().await?)
    }

    async fn list_stamps(
        &self,
        request: Request<v1::ListStampsRequest>,
    ) -> Result<Response<v1::ListStampsResponse>, Status> {
        let filter: Scoped<StampFilter> = admit(request)?;
        let page = self.database.run_held(&filter).await?;
        Ok(respond_page(page).await?)
    }
}
