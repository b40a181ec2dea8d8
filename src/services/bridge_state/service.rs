//! The RPCs of BridgeStateService.

use tonic::{Request, Response, Status};

use super::{
    model::{BridgeFilter, StatsQuery},
    store::{ChangeBridges, DeleteBridges, GetBridges},
};
use crate::{
    db::{Database, batch::Batcher},
    domain::{error::Result, namespace::Scoped},
    proto::v1::{self, bridge_state_service_server::BridgeStateService},
    rpc::{
        admit::admit,
        batch_request::{respond, respond_page},
    },
};

/// Serves `bridgebook.v1.BridgeStateService`.
pub struct BridgeStates {
    database: Database,
    change: Batcher<ChangeBridges>,
    get: Batcher<GetBridges>,
    delete: Batcher<DeleteBridges>,
}

impl BridgeStates {
    /// Makes the service and starts its batch writers. Needs a tokio runtime.
    #[must_use]
    pub fn new(database: Database) -> Self {
        BridgeStates {
            change: Batcher::new(&database),
            get: Batcher::new(&database),
            delete: Batcher::new(&database),
            database,
        }
    }
}

#[tonic::async_trait]
impl BridgeStateService for BridgeStates {
    async fn upsert_bridge_state(
        &self,
        request: Request<v1::UpsertBridgeStateRequest>,
    ) -> Result<Response<v1::UpsertBridgeStateResponse>, Status> {
        let change = admit(request)?;
        let changed = self.change.submit_held(change).await?;
        Ok(respond(changed, Into::into))
    }

    async fn accumulate_bridge_state(
        &self,
        request: Request<v1::AccumulateBridgeStateRequest>,
    ) -> Result<Response<v1::AccumulateBridgeStateResponse>, Status> {
        let change = admit(request)?;
        let changed = self.change.submit_held(change).await?;
        Ok(respond(changed, Into::into))
    }

    async fn get_bridge_state(
        &self,
        request: Request<v1::GetBridgeStateRequest>,
    ) -> Result<Response<v1::GetBridgeStateResponse>, Status> {
        let query = admit(request)?;
        let bridge = self.get.submit_held(query).await?;
        Ok(respond(bridge, Into::into))
    }

    async fn list_bridge_states(
        &self,
        request: Request<v1::ListBridgeStatesRequest>,
    ) -> Result<Response<v1::ListBridgeStatesResponse>, Status> {
        let filter: Scoped<BridgeFilter> = admit(request)?;
        let page = self.database.run_held(&filter).await?;
        Ok(respond_page(page).await?)
    }

    async fn delete_bridge_state(
        &self,
        request: Request<v1::DeleteBridgeStateRequest>,
    ) -> Result<Response<v1::DeleteBridgeStateResponse>, Status> {
        let deletion = admit(request)?;
        let deleted = self.delete.submit(deletion).await?;
        Ok(Response::new(deleted.into()))
    }

    async fn get_bridge_stats(
        &self,
        request: Request<v1::GetBridgeStatsRequest>,
    ) -> Result<Response<v1::GetBridgeStatsResponse>, Status> {
        let query: Scoped<StatsQuery> = admit(request)?;
        let stats = self.database.run_held(&query).await?;
        Ok(respond(stats, Into::into))
    }
}
