//! The RPCs of AdminService.

use tonic::{Request, Response, Status};

use super::model::{HealthQuery, IndexQuery, MigrationsQuery, ScanQuery, SummaryQuery};
use crate::{
    db::{Database, Owner, Query, batch::reservation::Held},
    domain::error::Result,
    ops::retention::model::{NewPolicy, PolicyFilter, PolicyKey, PolicyRemoval},
    proto::v1::{self, admin_service_server::AdminService},
    rpc::{
        admit::admit_operator,
        auth::token::{Revocation, TokenFilter, TokenRequest},
        batch_request::{respond, respond_list, respond_page},
        quota::{
            Quotas,
            model::{NewQuota, QuotaFilter, QuotaKey, QuotaRemoval},
        },
    },
};

/// Serves `bridgebook.v1.AdminService`.
pub struct Admin {
    database: Database,
    quotas: Quotas,
}

impl Admin {
    /// Makes the service.
    #[must_use]
    pub fn new(database: Database, quotas: Quotas) -> Self {
        Admin { database, quotas }
    }

    /// Runs a query in the turn of the operators.
    async fn run<Q: Query>(&self, query: &Q) -> Result<Held<Q::Answer>> {
        self.database.run_for(Owner::Operators, query).await
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn get_system_health(
        &self,
        request: Request<v1::GetSystemHealthRequest>,
    ) -> Result<Response<v1::GetSystemHealthResponse>, Status> {
        let query: HealthQuery = admit_operator(request)?;
        let health = self.run(&query).await?;
        Ok(respond(health, Into::into))
    }

    async fn list_namespace_summaries(
        &self,
        request: Request<v1::ListNamespaceSummariesRequest>,
    ) -> Result<Response<v1::ListNamespaceSummariesResponse>, Status> {
        let query: SummaryQuery = admit_operator(request)?;
        let summaries = self.run(&query).await?;
        Ok(respond(summaries, Into::into))
    }

    async fn get_index_usage(
        &self,
        request: Request<v1::GetIndexUsageRequest>,
    ) -> Result<Response<v1::GetIndexUsageResponse>, Status> {
        let query: IndexQuery = admit_operator(request)?;
        let indexes = self.run(&query).await?;
        Ok(respond(indexes, Into::into))
    }

    async fn get_table_scans(
        &self,
        request: Request<v1::GetTableScansRequest>,
    ) -> Result<Response<v1::GetTableScansResponse>, Status> {
        let query: ScanQuery = admit_operator(request)?;
        let tables = self.run(&query).await?;
        Ok(respond(tables, Into::into))
    }

    async fn list_migrations(
        &self,
        request: Request<v1::ListMigrationsRequest>,
    ) -> Result<Response<v1::ListMigrationsResponse>, Status> {
        let query: MigrationsQuery = admit_operator(request)?;
        let migrations = self.run(&query).await?;
        Ok(respond(migrations, Into::into))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let wanted: TokenRequest = admit_operator(request)?;
        let wanted = wanted.with_secret()?;
        let token = self.run(&wanted).await?;
        Ok(respond(token, |token| (token, wanted.credential()).into()))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let filter: TokenFilter = admit_operator(request)?;
        let page = self.run(&filter).await?;
        Ok(respond_page(page).await?)
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let revocation: Revocation = admit_operator(request)?;
        let token = self.run(&revocation).await?;
        Ok(respond(token, Into::into))
    }

    async fn set_retention_policy(
        &self,
        request: Request<v1::SetRetentionPolicyRequest>,
    ) -> Result<Response<v1::SetRetentionPolicyResponse>, Status> {
        let wanted: NewPolicy = admit_operator(request)?;
        let policy = self.run(&wanted).await?;
        Ok(respond(policy, Into::into))
    }

    async fn list_retention_policies(
        &self,
        request: Request<v1::ListRetentionPoliciesRequest>,
    ) -> Result<Response<v1::ListRetentionPoliciesResponse>, Status> {
        let filter: PolicyFilter = admit_operator(request)?;
        let page = self.run(&filter).await?;
        Ok(respond_page(page).await?)
    }

    async fn delete_retention_policy(
        &self,
        request: Request<v1::DeleteRetentionPolicyRequest>,
    ) -> Result<Response<v1::DeleteRetentionPolicyResponse>, Status> {
        let key: PolicyKey = admit_operator(request)?;
        // A removal that runs again after a lost answer does not find the policy any more.
        let existed = self.run(&key).await?.answer;
        let removed = self.run(&PolicyRemoval(&key)).await?;
        Ok(respond(removed, |()| existed.into()))
    }

    async fn set_quota(
        &self,
        request: Request<v1::SetQuotaRequest>,
    ) -> Result<Response<v1::SetQuotaResponse>, Status> {
        let wanted: NewQuota = admit_operator(request)?;
        let quota = self.run(&wanted).await?;
        Ok(respond(quota, Into::into))
    }

    async fn list_quotas(
        &self,
        request: Request<v1::ListQuotasRequest>,
    ) -> Result<Response<v1::ListQuotasResponse>, Status> {
        let filter: QuotaFilter = admit_operator(request)?;
        let page = self.run(&filter).await?;
        let defaults = self.quotas.defaults();
        let response = |page| v1::ListQuotasResponse::from((page, defaults));
        Ok(respond_list(page, response, |it| &mut it.quotas).await?)
    }

    async fn delete_quota(
        &self,
        request: Request<v1::DeleteQuotaRequest>,
    ) -> Result<Response<v1::DeleteQuotaResponse>, Status> {
        let key: QuotaKey = admit_operator(request)?;
        // A removal that runs again after a lost answer does not find the quota any more.
        let existed = self.run(&key).await?.answer;
        let removed = self.run(&QuotaRemoval(&key)).await?;
        Ok(respond(removed, |()| existed.into()))
    }
}
