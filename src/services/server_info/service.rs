//! The RPCs of ServerService.

use tonic::{Request, Response, Status};

use super::model::{LimitsInForce, ServerInfo, ServerInfoQuery};
use crate::{
    db::Database,
    domain::error::Error,
    proto::v1::{self, server_service_server::ServerService},
    rpc::admit::admit_any,
};

/// Serves `bridgebook.v1.ServerService`.
pub struct Server {
    database: Database,
    limits: LimitsInForce,
}

impl Server {
    /// Makes the service of a server with these limits.
    #[must_use]
    pub fn new(database: Database, limits: LimitsInForce) -> Self {
        Server { database, limits }
    }
}

#[tonic::async_trait]
impl ServerService for Server {
    async fn get_server_info(
        &self,
        request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        let (caller, query): (_, ServerInfoQuery) = admit_any(request)?;
        // What is known without the database is answered during an outage, too.
        let database = match self.database.run(&query).await {
            Ok(database) => Some(database),
            Err(Error::DatabaseUnavailable(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let info = ServerInfo {
            limits: self.limits,
            database,
            caller,
        };
        Ok(Response::new(info.into()))
    }
}
