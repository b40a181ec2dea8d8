//! The RPCs of AdminService.

use tonic::{Request, Response, Status};

use super::model::{HealthQuery, IndexQuery, MigrationsQuery, ScanQuery, SummaryQuery};
use crate::{
    db::Database,
    ops::retention::model::{NewPolicy, PolicyFilter, PolicyKey, PolicyRemoval},
    proto::v1::{self, admin_service_server::AdminService},
    rpc::{
        admit::admit_operator,
        auth::token::{Revocation, TokenFilter, TokenRequest},
    },
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
        let health = self.database.run(&query).await?;
        Ok(Response::new(health.into()))
    }

    async fn list_namespace_summaries(
        &self,
        request: Request<v1::ListNamespaceSummariesRequest>,
    ) -> Result<Response<v1::ListNamespaceSummariesResponse>, Status> {
        let query: SummaryQuery = admit_operator(request)?;
        let summaries = self.database.run(&query).await?;
        Ok(Response::new(summaries.into()))
    }

    async fn get_index_usage(
        &self,
        request: Request<v1::GetIndexUsageRequest>,
    ) -> Result<Response<v1::GetIndexUsageResponse>, Status> {
        let query: IndexQuery = admit_operator(request)?;
        let indexes = self.database.run(&query).await?;
        Ok(Response::new(indexes.into()))
    }

    async fn get_table_scans(
        &self,
        request: Request<v1::GetTableScansRequest>,
    ) -> Result<Response<v1::GetTableScansResponse>, Status> {
        let query: ScanQuery = admit_operator(request)?;
        let tables = self.database.run(&query).await?;
        Ok(Response::new(tables.into()))
    }

    async fn list_migrations(
        &self,
        request: Request<v1::ListMigrationsRequest>,
    ) -> Result<Response<v1::ListMigrationsResponse>, Status> {
        let query: MigrationsQuery = admit_operator(request)?;
        let migrations = self.database.run(&query).await?;
        Ok(Response::new(migrations.into()))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let wanted: TokenRequest = admit_operator(request)?;
        let wanted = wanted.with_secret()?;
        let token = self.database.run(&wanted).await?;
        Ok(Response::new((token, wanted.credential()).into()))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let filter: TokenFilter = admit_operator(request)?;
        let page = self.database.run(&filter).await?;
        Ok(Response::new(page.into()))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let revocation: Revocation = admit_operator(request)?;
        let token = self.database.run(&revocation).await?;
        Ok(Response::new(token.into()))
    }

    async fn set_retention_policy(
        &self,
        request: Request<v1::SetRetentionPolicyRequest>,
    ) -> Result<Response<v1::SetRetentionPolicyResponse>, Status> {
        let wanted: NewPolicy = admit_operator(request)?;
        let policy = self.database.run(&wanted).await?;
        Ok(Response::new(policy.into()))
    }

    async fn list_retention_policies(
        &self,
        request: Request<v1::ListRetentionPoliciesRequest>,
    ) -> Result<Response<v1::ListRetentionPoliciesResponse>, Status> {
        let filter: PolicyFilter = admit_operator(request)?;
        let page = self.database.run(&filter).await?;
        Ok(Response::new(page.into()))
    }

    async fn delete_retention_policy(
        &self,
        request: Request<v1::DeleteRetentionPolicyRequest>,
    ) -> Result<Response<v1::DeleteRetentionPolicyResponse>, Status> {
        let key: PolicyKey = admit_operator(request)?;
        // A removal that runs again after a lost answer does not find the policy any more.
        let existed = self.database.run(&key).await?;
        self.database.run(&PolicyRemoval(&key)).await?;
        Ok(Response::new(existed.into()))
    }
}
