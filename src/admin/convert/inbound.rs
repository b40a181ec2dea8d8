//! Requests. Every violation is collected.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;

use crate::{
    access::{
        credential::Secret,
        token::{Coverage, NewToken, Revocation, Role, TokenFilter, WILDCARD},
    },
    admin::model::{HealthQuery, IndexQuery, MigrationsQuery, ScanQuery, SummaryQuery},
    id::TokenId,
    namespace::{self, Namespace},
    page::{DEFAULT_SIZE, PageRequest},
    proto::v1,
    retention::model::{
        MAX_AGE, MIN_AGE, NewPolicy, PolicyFilter, PolicyKey, PolicyRemoval, Table,
    },
    time,
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

/// How many patterns of namespaces a token has at most: enough for a team's, and
/// quickly gone through at every call.
const MAX_PATTERNS: usize = 100;

impl TryFrom<v1::CreateTokenRequest> for NewToken {
    type Error = Violations;

    fn try_from(request: v1::CreateTokenRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let id = check.optional_id("id", &request.id);
        let name = check.line("name", request.name);
        let role = role(&mut check, request.role);
        let namespaces = coverage(&mut check, role, request.namespaces);
        let expires_at = request
            .expires_at
            .map(|end| check.noted("expires_at", future(&end)));
        let secret = Secret::generate()
            .map_err(|error| Violations::one("credential", format!("can't be made: {error}")))?;
        check.finish(NewToken {
            id: id.unwrap_or_else(TokenId::generate),
            name,
            role,
            namespaces,
            expires_at,
            secret,
        })
    }
}

fn future(time: &Timestamp) -> Result<DateTime<Utc>, &'static str> {
    let time = time::from_proto(time)?;
    let is_future = time > Utc::now();
    is_future.then_some(time).ok_or("must be in the future")
}

fn role(check: &mut Checker, role: i32) -> Role {
    match v1::Role::try_from(role) {
        Ok(v1::Role::Reader) => Role::Reader,
        Ok(v1::Role::Writer) => Role::Writer,
        Ok(v1::Role::Admin) => Role::Admin,
        Ok(v1::Role::Unspecified) => {
            check.violation("role", "is required");
            Role::Reader
        }
        Err(_) => {
            check.violation("role", format!("must be a Role, not {role}"));
            Role::Reader
        }
    }
}

fn coverage(check: &mut Checker, role: Role, patterns: Vec<String>) -> Coverage {
    if role == Role::Admin {
        if patterns.iter().any(|pattern| *pattern != "*") {
            check.violation(
                "namespaces",
                "must be left out, or be \"*\", for the role ADMIN",
            );
        }
        return Coverage::everything();
    }
    if patterns.is_empty() {
        check.violation("namespaces", "is required");
    } else if patterns.len() > MAX_PATTERNS {
        let fault = format!("must not have more than {MAX_PATTERNS} items");
        check.violation("namespaces", fault);
        return Coverage::everything();
    }
    for (index, pattern) in patterns.iter().enumerate() {
        let beginning = pattern.strip_suffix(WILDCARD);
        if beginning != Some("") {
            let name = beginning.unwrap_or(pattern).to_owned();
            check.namespace(&format!("namespaces[{index}]"), name);
        }
    }
    Coverage::of(patterns)
}

impl TryFrom<v1::ListTokensRequest> for TokenFilter {
    type Error = Violations;

    fn try_from(request: v1::ListTokensRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let filters = v1::ListTokensRequest {
            active_only: request.active_only,
            ..v1::ListTokensRequest::default()
        };
        let page = PageRequest::read(
            &mut check,
            request.page_size,
            &request.page_token,
            "ListTokens",
            &filters,
        );
        check.finish(TokenFilter {
            active_only: request.active_only,
            page,
        })
    }
}

impl TryFrom<v1::RevokeTokenRequest> for Revocation {
    type Error = Violations;

    fn try_from(request: v1::RevokeTokenRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let id = check.id("id", &request.id);
        check.finish(Revocation { id })
    }
}

impl TryFrom<v1::SetRetentionPolicyRequest> for NewPolicy {
    type Error = Violations;

    fn try_from(request: v1::SetRetentionPolicyRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let key = policy_key(&mut check, request.namespace, request.table);
        let max_age_seconds = request
            .max_age
            .map(|age| check.noted("max_age", age_seconds(&age)));
        check.finish(NewPolicy {
            key,
            max_age_seconds,
        })
    }
}

fn policy_key(check: &mut Checker, namespace: String, table: i32) -> PolicyKey {
    let namespace = check.namespace("namespace", namespace);
    if !namespace::may_have_rows(&namespace) {
        let registry = Namespace::registry();
        let rule = format!("of the service's own namespaces there is only {registry}");
        check.violation("namespace", rule);
    }
    let table = match v1::RetainedTable::try_from(table) {
        Ok(v1::RetainedTable::WorkflowExecutions) => Table::Workflows,
        Ok(v1::RetainedTable::FsmTransitions) => Table::Transitions,
        Ok(v1::RetainedTable::BridgeBatches) => Table::Batches,
        Ok(v1::RetainedTable::MetadataStamps) => Table::Stamps,
        Ok(v1::RetainedTable::Unspecified) => {
            check.violation("table", "is required");
            Table::Workflows
        }
        Err(_) => {
            check.violation("table", format!("must be a RetainedTable, not {table}"));
            Table::Workflows
        }
    };
    PolicyKey { namespace, table }
}

fn age_seconds(age: &prost_types::Duration) -> Result<i64, String> {
    let is_good = age.nanos == 0 && (MIN_AGE..=MAX_AGE).contains(&age.seconds);
    is_good
        .then_some(age.seconds)
        .ok_or_else(|| format!("must be whole seconds, from {MIN_AGE} to {MAX_AGE}"))
}

impl TryFrom<v1::ListRetentionPoliciesRequest> for PolicyFilter {
    type Error = Violations;

    fn try_from(request: v1::ListRetentionPoliciesRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let page = PageRequest::read(
            &mut check,
            request.page_size,
            &request.page_token,
            "ListRetentionPolicies",
            &v1::ListRetentionPoliciesRequest::default(),
        );
        check.finish(PolicyFilter { page })
    }
}

impl TryFrom<v1::DeleteRetentionPolicyRequest> for PolicyRemoval {
    type Error = Violations;

    fn try_from(request: v1::DeleteRetentionPolicyRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let key = policy_key(&mut check, request.namespace, request.table);
        check.finish(PolicyRemoval(key))
    }
}
