//! The RPCs of RegistryService.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    model::{Discovery, NodeFilter},
    store::{DeregisterNodes, DiscoverNodes, GetNodes, RegisterNodes, TouchNodes},
};
use crate::{
    db::{Database, batch::Batcher},
    domain::{error::Result, namespace::Scoped},
    proto::v1::{self, registry_service_server::RegistryService},
    rpc::{
        admit::admit,
        batch_request::{respond, respond_page, submit_item, submit_valid},
    },
};

/// Serves `bridgebook.v1.RegistryService`.
pub struct Registry {
    database: Database,
    register: Batcher<RegisterNodes>,
    heartbeat: Batcher<TouchNodes>,
    deregister: Batcher<DeregisterNodes>,
    get: Batcher<GetNodes>,
    discover: Batcher<DiscoverNodes>,
}

impl Registry {
    /// Makes the service and starts its batch writers. Needs a tokio runtime.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Registry {
            register: Batcher::new(&database),
            heartbeat: Batcher::new(&database),
            deregister: Batcher::new(&database),
            get: Batcher::new(&database),
            discover: Batcher::new(&database),
            database,
        }
    }
}

#[tonic::async_trait]
impl RegistryService for Registry {
    async fn register_node(
        &self,
        request: Request<v1::RegisterNodeRequest>,
    ) -> Result<Response<v1::RegisterNodeResponse>, Status> {
        let new = admit(request)?;
        let outcome = self.register.submit(new).await?;
        Ok(Response::new(outcome.into()))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let heartbeat = admit(request)?;
        let ack = submit_item(&self.heartbeat, "heartbeat", heartbeat).await?;
        Ok(Response::new(ack.into()))
    }

    async fn batch_heartbeat(
        &self,
        request: Request<v1::BatchHeartbeatRequest>,
    ) -> Result<Response<v1::BatchHeartbeatResponse>, Status> {
        let items = admit(request)?;
        let results = submit_valid(&self.heartbeat, "heartbeats", items).await?;
        Ok(results.into_response().await?)
    }

    async fn deregister_node(
        &self,
        request: Request<v1::DeregisterNodeRequest>,
    ) -> Result<Response<v1::DeregisterNodeResponse>, Status> {
        let deregistration = admit(request)?;
        let deregistered = self.deregister.submit(deregistration).await?;
        Ok(Response::new(deregistered.into()))
    }

    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        let query = admit(request)?;
        let node = self.get.submit_held(query).await?;
        Ok(respond(node, Into::into))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let filter: Scoped<NodeFilter> = admit(request)?;
        let page = self.database.run_held(&filter).await?;
        Ok(respond_page(page).await?)
    }

    async fn discover_nodes(
        &self,
        request: Request<v1::DiscoverNodesRequest>,
    ) -> Result<Response<v1::DiscoverNodesResponse>, Status> {
        let discovery: Scoped<Discovery> = admit(request)?;
        if discovery.is_plain() {
            let page = discovery.page.clone();
            let found = self.discover.submit_held(discovery).await?;
            let page = found.map(|found| Arc::unwrap_or_clone(found).into_page(&page));
            return Ok(respond_page(page).await?);
        }
        let page = self.database.run_held(&discovery).await?;
        Ok(respond_page(page).await?)
    }
}
