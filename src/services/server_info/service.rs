//! The RPCs of ServerService.

use std::time::Instant;

use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

use super::model::{DatabaseInfo, LimitsInForce, ServerInfo, ServerInfoQuery};
use crate::{
    db::Database,
    domain::error::{Error, Result},
    proto::v1::{self, server_service_server::ServerService},
    rpc::admit::admit_any,
};

/// Serves `bridgebook.v1.ServerService`.
pub struct Server {
    database: Database,
    limits: LimitsInForce,
    /// The last result of the query, and when the query began.
    shared: Mutex<Option<(Instant, Result<DatabaseInfo>)>>,
}

impl Server {
    /// Makes the service of a server with these limits.
    #[must_use]
    pub fn new(database: Database, limits: LimitsInForce) -> Self {
        Server {
            database,
            limits,
            shared: Mutex::default(),
        }
    }

    /// Describes the database. Calls that arrive before a query begins share it and its failure, so
    /// that a burst of calls takes one connection.
    async fn database(&self, query: &ServerInfoQuery) -> Result<DatabaseInfo> {
        let arrived = Instant::now();
        let mut shared = self.shared.lock().await;
        if let Some((begun, result)) = &*shared
            && *begun >= arrived
        {
            return result.clone();
        }
        let begun = Instant::now();
        let result = self.database.run(query).await;
        *shared = Some((begun, result.clone()));
        result
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
        let database = match self.database(&query).await {
            Ok(database) => Some(database),
            Err(Error::DatabaseUnavailable(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let info = ServerInfo {
            limits: self.limits.of(&caller),
            database,
            caller,
        };
        Ok(Response::new(info.into()))
    }
}
