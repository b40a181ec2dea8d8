//! Converts requests to domain types, and collects every violation.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;

use crate::{
    domain::{
        id::TokenId,
        namespace::{Namespace, RESERVED_PREFIX, may_have_rows},
        page::DEFAULT_SIZE,
        role::Role,
        time,
    },
    ops::retention::model::{MAX_AGE, MIN_AGE, NewPolicy, PolicyFilter, PolicyKey, Table},
    proto::v1,
    rpc::{
        admit::FromRequest,
        auth::token::{NamespacePatterns, Revocation, TokenFilter, TokenRequest},
        page_token::read_page,
        validate::{ProtoEnum, Validator, proto_enum},
    },
    services::admin::model::{HealthQuery, IndexQuery, MigrationsQuery, ScanQuery, SummaryQuery},
};

/// Default lookback of GetSystemHealth: 1 hour.
const HEALTH_MICROS: i64 = 3_600 * 1_000_000;

/// Default number of tables of GetTableScans. The schema has few tables, and the first ones
/// matter most.
const DEFAULT_TABLES: i32 = 10;

proto_enum!(Role = v1::Role {
    Reader = Reader,
    Writer = Writer,
    Admin = Admin,
});

proto_enum!(Table = v1::RetainedTable {
    Workflows = WorkflowExecutions,
    Transitions = FsmTransitions,
    Batches = BridgeBatches,
    Stamps = MetadataStamps,
});

impl FromRequest<v1::GetSystemHealthRequest> for HealthQuery {
    fn from_request(request: v1::GetSystemHealthRequest, check: &mut Validator) -> Self {
        let within = check.optional_within("started_within", request.started_within);
        HealthQuery {
            started_within_micros: within.unwrap_or(HEALTH_MICROS),
        }
    }
}

impl FromRequest<v1::ListNamespaceSummariesRequest> for SummaryQuery {
    fn from_request(request: v1::ListNamespaceSummariesRequest, check: &mut Validator) -> Self {
        SummaryQuery {
            limit: check.page_size("limit", request.limit, DEFAULT_SIZE),
            started_within_micros: check.optional_within("started_within", request.started_within),
        }
    }
}

impl FromRequest<v1::GetIndexUsageRequest> for IndexQuery {
    fn from_request(request: v1::GetIndexUsageRequest, check: &mut Validator) -> Self {
        let limit = check.page_size("limit", request.limit, DEFAULT_SIZE);
        IndexQuery { limit }
    }
}

impl FromRequest<v1::GetTableScansRequest> for ScanQuery {
    fn from_request(request: v1::GetTableScansRequest, check: &mut Validator) -> Self {
        let limit = check.page_size("limit", request.limit, DEFAULT_TABLES);
        ScanQuery { limit }
    }
}

impl FromRequest<v1::ListMigrationsRequest> for MigrationsQuery {
    fn from_request(_: v1::ListMigrationsRequest, _: &mut Validator) -> Self {
        MigrationsQuery
    }
}

/// Maximum number of namespace patterns of a token: enough for a team, and fast to match at
/// every call.
const MAX_PATTERNS: usize = 100;

impl FromRequest<v1::CreateTokenRequest> for TokenRequest {
    fn from_request(request: v1::CreateTokenRequest, check: &mut Validator) -> Self {
        let id = check.optional_id("id", &request.id);
        let name = check.name("name", request.name);
        let role = check.required_enum("role", request.role, Role::Reader);
        let namespaces = coverage(check, role, request.namespaces);
        let expires_at = request
            .expires_at
            .map(|end| check.parsed("expires_at", future(&end)));
        TokenRequest {
            id: id.unwrap_or_else(TokenId::generate),
            name,
            role,
            namespaces,
            expires_at,
        }
    }

    fn target_token_id(&self) -> Option<TokenId> {
        Some(self.id)
    }
}

fn future(time: &Timestamp) -> Result<DateTime<Utc>, String> {
    let time = time::from_proto(time)?;
    let now = Utc::now();
    (time > now)
        .then_some(time)
        .ok_or_else(|| format!("must be in the future, got {time}; it is {now} now"))
}

fn coverage(check: &mut Validator, role: Role, patterns: Vec<String>) -> NamespacePatterns {
    if role == Role::Admin {
        if patterns.iter().any(|pattern| *pattern != "*") {
            check.violation("namespaces", "must be empty or \"*\" for ROLE_ADMIN");
        }
        return NamespacePatterns::all();
    }
    if patterns.is_empty() {
        check.violation("namespaces", "is required");
    } else if patterns.len() > MAX_PATTERNS {
        let count = patterns.len();
        let rule = format!("must have at most {MAX_PATTERNS} items, got {count}");
        check.violation("namespaces", rule);
        return NamespacePatterns::all();
    }
    for (index, pattern) in patterns.iter().enumerate() {
        check.namespace_pattern(&format!("namespaces[{index}]"), pattern);
    }
    NamespacePatterns::from_valid(patterns)
}

impl FromRequest<v1::ListTokensRequest> for TokenFilter {
    fn from_request(mut request: v1::ListTokensRequest, check: &mut Validator) -> Self {
        let page = read_page(check, &mut request);
        TokenFilter {
            active_only: request.active_only,
            page,
        }
    }
}

impl FromRequest<v1::RevokeTokenRequest> for Revocation {
    fn from_request(request: v1::RevokeTokenRequest, check: &mut Validator) -> Self {
        let id = check.id("id", &request.id);
        Revocation { id }
    }

    fn target_token_id(&self) -> Option<TokenId> {
        Some(self.id)
    }
}

impl FromRequest<v1::SetRetentionPolicyRequest> for NewPolicy {
    fn from_request(request: v1::SetRetentionPolicyRequest, check: &mut Validator) -> Self {
        let key = policy_key(check, request.namespace, request.table);
        if Namespace::is_registry(&key.namespace) && key.table != Table::Transitions {
            let (table, namespace) = (Table::Transitions.proto_name(), &key.namespace);
            let rule = format!("must be {table} for {namespace}, which has no other rows");
            check.violation("table", rule);
        }
        let max_age_seconds = request
            .max_age
            .map(|age| check.parsed("max_age", age_seconds(&age)));
        NewPolicy {
            key,
            max_age_seconds,
        }
    }

    fn target_namespace(&self) -> Option<&str> {
        Some(&self.key.namespace)
    }
}

fn policy_key(check: &mut Validator, namespace: String, table: i32) -> PolicyKey {
    let namespace = check.namespace("namespace", namespace);
    if !may_have_rows(&namespace) {
        let registry = Namespace::registry();
        let rule = format!("must not start with {RESERVED_PREFIX:?}, except for {registry}");
        check.violation("namespace", rule);
    }
    let table = check.required_enum("table", table, Table::Transitions);
    PolicyKey { namespace, table }
}

fn age_seconds(age: &prost_types::Duration) -> Result<i64, String> {
    let is_good = age.nanos == 0 && (MIN_AGE..=MAX_AGE).contains(&age.seconds);
    is_good.then_some(age.seconds).ok_or_else(|| {
        let got = time::describe(age);
        format!("must be whole seconds from {MIN_AGE} to {MAX_AGE}, got {got}")
    })
}

impl FromRequest<v1::ListRetentionPoliciesRequest> for PolicyFilter {
    fn from_request(mut request: v1::ListRetentionPoliciesRequest, check: &mut Validator) -> Self {
        let page = read_page(check, &mut request);
        PolicyFilter { page }
    }
}

impl FromRequest<v1::DeleteRetentionPolicyRequest> for PolicyKey {
    fn from_request(request: v1::DeleteRetentionPolicyRequest, check: &mut Validator) -> Self {
        policy_key(check, request.namespace, request.table)
    }

    fn target_namespace(&self) -> Option<&str> {
        Some(&self.namespace)
    }
}
