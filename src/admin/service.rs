//! The RPCs of AdminService.

use tonic::{Request, Response, Status};

use super::model::{HealthQuery, IndexQuery, MigrationsQuery, ScanQuery, SummaryQuery};
use crate::{
    db::Database,
    namespace::admit_operator,
    proto::v1::{self, admin_service_server::AdminService},
};

/// Serves `bridgebook.v1.AdminService`.
pub struct Admin {
    database: Database,
}

impl Admin {
    /// Makes the service.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Admin { database }
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn get_system_health(
        &self,
        request: Request<v1::GetSystemHealthRequest>,
    ) -> Result<Response<v1::GetSystemHealthResponse>, Status> {
        let query: HealthQuery = admit_operator(request)?;
        let health = self.database.read(&query).await?;
        Ok(Response::new(health.into()))
    }

    async fn list_namespace_summaries(
        &self,
        request: Request<v1::ListNamespaceSummariesRequest>,
    ) -> Result<Response<v1::ListNamespaceSummariesResponse>, Status> {
        let query: SummaryQuery = admit_operator(request)?;
        let summaries = self.database.read(&query).await?;
        Ok(Response::new(summaries.into()))
    }

    async fn get_index_usage(
        &self,
        request: Request<v1::GetIndexUsageRequest>,
    ) -> Result<Response<v1::GetIndexUsageResponse>, Status> {
        let query: IndexQuery = admit_operator(request)?;
        let indexes = self.database.read(&query).await?;
        Ok(Response::new(indexes.into()))
    }

    async fn get_table_scans(
        &self,
        request: Request<v1::GetTableScansRequest>,
    ) -> Result<Response<v1::GetTableScansResponse>, Status> {
        let query: ScanQuery = admit_operator(request)?;
        let tables = self.database.read(&query).await?;
        Ok(Response::new(tables.into()))
    }

    async fn list_migrations(
        &self,
        request: Request<v1::ListMigrationsRequest>,
    ) -> Result<Response<v1::ListMigrationsResponse>, Status> {
        let query: MigrationsQuery = admit_operator(request)?;
        let migrations = self.database.read(&query).await?;
        Ok(Response::new(migrations.into()))
    }
}
