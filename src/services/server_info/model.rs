//! The description of a server.

use std::time::Duration;

use crate::{
    domain::{limits::ContentLimits, quota::QuotaLimits},
    rpc::{auth::Caller, quota::Quotas},
};

/// Version of the contract, see `GetServerInfoResponse.contract_version`. The minor number
/// increases with every release that adds to the contract.
pub const CONTRACT_VERSION: &str = "1.0";

/// Features that clients can test for, in alphabetical order. Documented in
/// `GetServerInfoResponse.capabilities`; a name is never removed.
pub const CAPABILITIES: &[&str] = &[
    "batch_heartbeat",
    "batch_record",
    "bridge_machines",
    "quotas",
    "retention_policies",
];

/// The request for the description of the server.
#[derive(Debug)]
pub struct ServerInfoQuery;

/// The limits in force.
#[derive(Clone)]
pub struct LimitsInForce {
    /// The limits of the content of a request.
    pub content: ContentLimits,
    /// Maximum duration of a call.
    pub call_duration: Duration,
    /// The quotas of tokens.
    pub quotas: Quotas,
}

/// The limits in force for one caller.
#[derive(Debug)]
pub struct CallerLimits {
    /// The limits of the content of a request.
    pub content: ContentLimits,
    /// Maximum duration of a call.
    pub call_duration: Duration,
    /// The limits of the caller's token.
    pub token: QuotaLimits,
    /// The default limits of namespaces.
    pub namespace_defaults: QuotaLimits,
}

impl LimitsInForce {
    /// Returns the limits of a caller.
    #[must_use]
    pub fn of(&self, caller: &Caller) -> CallerLimits {
        let token = caller.token_id().map(|id| self.quotas.token_limits(id));
        CallerLimits {
            content: self.content,
            call_duration: self.call_duration,
            token: token.unwrap_or_default(),
            namespace_defaults: self.quotas.defaults().namespace,
        }
    }
}

/// The database that the server uses.
#[derive(Debug, Clone)]
pub struct DatabaseInfo {
    /// The version of the database server, as in "15.18".
    pub version: String,
}

/// The description of a server, for one caller.
#[derive(Debug)]
pub struct ServerInfo {
    /// The limits in force.
    pub limits: CallerLimits,
    /// The database; `None` while it is unavailable.
    pub database: Option<DatabaseInfo>,
    /// The caller of the request.
    pub caller: Caller,
}
