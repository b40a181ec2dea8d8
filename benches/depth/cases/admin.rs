//! Cases of AdminService.

use bridgebook::proto::v1::{
    GetIndexUsageRequest, GetIndexUsageResponse, GetSystemHealthRequest, GetSystemHealthResponse,
    GetTableScansRequest, GetTableScansResponse, ListMigrationsRequest, ListMigrationsResponse,
    ListNamespaceSummariesRequest, ListNamespaceSummariesResponse,
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
    ]
}
