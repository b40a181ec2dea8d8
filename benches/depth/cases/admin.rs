//! AdminService.

use bridgebook::proto::v1::{
    GetIndexUsageRequest, GetIndexUsageResponse, GetSystemHealthRequest, GetSystemHealthResponse,
    GetTableScansRequest, GetTableScansResponse, ListMigrationsRequest, ListMigrationsResponse,
    ListNamespaceSummariesRequest, ListNamespaceSummariesResponse,
};

use crate::case::Case;

/// The cases of the service.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "AdminService/GetSystemHealth",
            "of an hour",
            |_| GetSystemHealthRequest::default(),
            GetSystemHealthResponse::default,
        )
        .grows(),
        Case::new(
            "AdminService/ListNamespaceSummaries",
            "of all workflows",
            |_| ListNamespaceSummariesRequest::default(),
            ListNamespaceSummariesResponse::default,
        )
        .grows(),
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
