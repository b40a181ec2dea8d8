//! Requests. Every violation is collected.

use crate::{
    admin::model::{HealthQuery, IndexQuery, MigrationsQuery, ScanQuery, SummaryQuery},
    page::DEFAULT_SIZE,
    proto::v1,
    validate::{Checker, Violations},
};

/// How far GetSystemHealth looks back if the request does not say: 1 hour.
const HEALTH_MICROS: i64 = 3_600 * 1_000_000;

/// How many tables an answer has if the request does not say: there are not
/// many, and the first ones are what matters.
const DEFAULT_TABLES: i32 = 10;

impl TryFrom<v1::GetSystemHealthRequest> for HealthQuery {
    type Error = Violations;

    fn try_from(request: v1::GetSystemHealthRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let within = check.optional_within("started_within", request.started_within);
        check.finish(HealthQuery {
            started_within_micros: within.unwrap_or(HEALTH_MICROS),
        })
    }
}

impl TryFrom<v1::ListNamespaceSummariesRequest> for SummaryQuery {
    type Error = Violations;

    fn try_from(request: v1::ListNamespaceSummariesRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let query = SummaryQuery {
            limit: check.limit("limit", request.limit, DEFAULT_SIZE),
            started_within_micros: check.optional_within("started_within", request.started_within),
        };
        check.finish(query)
    }
}

impl TryFrom<v1::GetIndexUsageRequest> for IndexQuery {
    type Error = Violations;

    fn try_from(request: v1::GetIndexUsageRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let limit = check.limit("limit", request.limit, DEFAULT_SIZE);
        check.finish(IndexQuery { limit })
    }
}

impl TryFrom<v1::GetTableScansRequest> for ScanQuery {
    type Error = Violations;

    fn try_from(request: v1::GetTableScansRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let limit = check.limit("limit", request.limit, DEFAULT_TABLES);
        check.finish(ScanQuery { limit })
    }
}

impl TryFrom<v1::ListMigrationsRequest> for MigrationsQuery {
    type Error = Violations;

    fn try_from(_: v1::ListMigrationsRequest) -> Result<Self, Violations> {
        Ok(MigrationsQuery)
    }
}
