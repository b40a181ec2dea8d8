//! Cases of AdminService.

use bridgebook::proto::v1::{
    GetIndexUsageRequest, GetIndexUsageResponse, GetSystemHealthRequest, GetSystemHealthResponse,
    GetTableScansRequest, GetTableScansResponse, ListMigrationsRequest, ListMigrationsResponse,
    ListNamespaceSummariesRequest, ListNamespaceSummariesResponse, ListQuotasRequest,
    ListQuotasResponse, ListRetentionPoliciesRequest, ListRetentionPoliciesResponse,
    ListTokensRequest, ListTokensResponse,
};

use crate::case::Case;

/// Returns the cases of the service.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "AdminService/GetSystemHealth",
            "last hour",
            |_| GetSystemHealthRequest::default(),
            GetSystemHealthResponse::default,
        )
        .scales_with_data(),
        Case::new(
            "AdminService/ListNamespaceSummaries",
            "all workflows",
            |_| ListNamespaceSummariesRequest::default(),
            ListNamespaceSummariesResponse::default,
        )
        .scales_with_data(),
        Case::new(
            "AdminService/GetIndexUsage",
            "",
            |_| GetIndexUsageRequest::default(),
            GetIndexUsageResponse::default,
        ),
        Case::new(
            "AdminService/GetTableScans",
            "",
            |_| GetTableScansRequest::default(),
            GetTableScansResponse::default,
        ),
        Case::new(
            "AdminService/ListMigrations",
            "",
            |_| ListMigrationsRequest {},
            ListMigrationsResponse::default,
        ),
        Case::new(
            "AdminService/ListTokens",
            "",
            |params| ListTokensRequest {
                page_size: params.page_size,
                page_token: params.page_token,
                ..ListTokensRequest::default()
            },
            ListTokensResponse::default,
        ),
        Case::new(
            "AdminService/ListRetentionPolicies",
            "",
            |params| ListRetentionPoliciesRequest {
                page_size: params.page_size,
                page_token: params.page_token,
            },
            ListRetentionPoliciesResponse::default,
        ),
        Case::new(
            "AdminService/ListQuotas",
            "",
            |params| ListQuotasRequest {
                page_size: params.page_size,
                page_token: params.page_token,
            },
            ListQuotasResponse::default,
        ),
    ]
}
