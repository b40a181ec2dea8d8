//! The RPCs of FsmService.

use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::{
    model::{
        EntityFilter, MachineFilter, MachineQuery, StatsFilter, TransitionFilter, WatchRequest,
    },
    store::{DeleteMachines, GetEntities, PutMachines, RecordTransitions},
    watch,
};
use crate::{
    db::{Database, batch::Batcher, feed::FindBegins},
    domain::{error::Result, namespace::Scoped},
    proto::v1::{self, fsm_service_server::FsmService},
    rpc::{
        admit::admit,
        batch_request::{respond, respond_page, submit_item, submit_valid},
        stream_call::{admit_stream, respond_stream},
    },
};

/// Serves `bridgebook.v1.FsmService`.
pub struct Fsm {
    database: Database,
    put: Batcher<PutMachines>,
    delete: Batcher<DeleteMachines>,
    record: Batcher<RecordTransitions>,
    get: Batcher<GetEntities>,
    begin: Batcher<FindBegins>,
}

impl Fsm {
    /// Makes the service and starts its batch writers. Needs a tokio runtime.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Fsm {
            put: Batcher::new(&database),
            delete: Batcher::new(&database),
            record: Batcher::new(&database),
            get: Batcher::new(&database),
            begin: Batcher::new(&database),
            database,
        }
    }
}

#[tonic::async_trait]
impl FsmService for Fsm {
    async fn put_machine(
        &self,
        request: Request<v1::PutMachineRequest>,
    ) -> Result<Response<v1::PutMachineResponse>, Status> {
        let new = admit(request)?;
        let outcome = self.put.submit(new).await?;
        Ok(Response::new(outcome.into()))
    }

    async fn get_machine(
        &self,
        request: Request<v1::GetMachineRequest>,
    ) -> Result<Response<v1::GetMachineResponse>, Status> {
        let query: Scoped<MachineQuery> = admit(request)?;
        let machine = self.database.run_held(&query).await?;
        Ok(respond(machine, Into::into))
    }

    async fn list_machines(
        &self,
        request: Request<v1::ListMachinesRequest>,
    ) -> Result<Response<v1::ListMachinesResponse>, Status> {
        let filter: Scoped<MachineFilter> = admit(request)?;
        let page = self.database.run_held(&filter).await?;
        Ok(respond_page(page).await?)
    }

    async fn delete_machine(
        &self,
        request: Request<v1::DeleteMachineRequest>,
    ) -> Result<Response<v1::DeleteMachineResponse>, Status> {
        let deletion = admit(request)?;
        let deleted = self.delete.submit(deletion).await?;
        Ok(Response::new(deleted.into()))
    }

    async fn record_transition(
        &self,
        request: Request<v1::RecordTransitionRequest>,
    ) -> Result<Response<v1::RecordTransitionResponse>, Status> {
        let new = admit(request)?;
        let moved = submit_item(&self.record, "transition", new).await?;
        Ok(Response::new(moved.into()))
    }

    async fn batch_record_transitions(
        &self,
        request: Request<v1::BatchRecordTransitionsRequest>,
    ) -> Result<Response<v1::BatchRecordTransitionsResponse>, Status> {
        let items = admit(request)?;
        let results = submit_valid(&self.record, "transitions", items).await?;
        Ok(results.into_response().await?)
    }

    async fn get_entity(
        &self,
        request: Request<v1::GetEntityRequest>,
    ) -> Result<Response<v1::GetEntityResponse>, Status> {
        let key = admit(request)?;
        let details = self.get.submit_held(key).await?;
        Ok(respond(details, Into::into))
    }

    async fn list_entities(
        &self,
        request: Request<v1::ListEntitiesRequest>,
    ) -> Result<Response<v1::ListEntitiesResponse>, Status> {
        let filter: Scoped<EntityFilter> = admit(request)?;
        let page = self.database.run_held(&filter).await?;
        Ok(respond_page(page).await?)
    }

    async fn list_transitions(
        &self,
        request: Request<v1::ListTransitionsRequest>,
    ) -> Result<Response<v1::ListTransitionsResponse>, Status> {
        let filter: Scoped<TransitionFilter> = admit(request)?;
        let page = self.database.run_held(&filter).await?;
        Ok(respond_page(page).await?)
    }

    async fn get_transition_stats(
        &self,
        request: Request<v1::GetTransitionStatsRequest>,
    ) -> Result<Response<v1::GetTransitionStatsResponse>, Status> {
        let filter: Scoped<StatsFilter> = admit(request)?;
        let stats = self.database.run_held(&filter).await?;
        Ok(respond(stats, Into::into))
    }

    type WatchTransitionsStream = BoxStream<'static, Result<v1::WatchTransitionsResponse, Status>>;

    async fn watch_transitions(
        &self,
        request: Request<v1::WatchTransitionsRequest>,
    ) -> Result<Response<Self::WatchTransitionsStream>, Status> {
        let (request, call): (Scoped<WatchRequest>, _) = admit_stream(request)?;
        let stream = watch::open(&self.database, &self.begin, request, call).await?;
        Ok(respond_stream(stream))
    }
}
