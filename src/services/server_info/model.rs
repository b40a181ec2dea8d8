//! The description of a server.

use std::{num::NonZeroU32, time::Duration};

use crate::{domain::limits::ContentLimits, rpc::auth::Caller};

/// Version of the contract, see `GetServerInfoResponse.contract_version`. The minor number
/// increases with every release that adds to the contract.
pub const CONTRACT_VERSION: &str = "1.0";

/// Features that clients can test for, in alphabetical order. Documented in
/// `GetServerInfoResponse.capabilities`; a name is never removed.
pub const CAPABILITIES: &[&str] = &[
    "batch_heartbeat",
    "batch_record",
    "bridge_machines",
    "retention_policies",
];

/// The request for the description of the server.
#[derive(Debug)]
pub struct ServerInfoQuery;

/// The limits in force.
#[derive(Debug, Clone, Copy)]
pub struct LimitsInForce {
    /// The limits of the content of a request.
    pub content: ContentLimits,
    /// Maximum duration of a call.
    pub call_duration: Duration,
    /// Maximum rate of calls for each token, per second; `None` if unlimited.
    pub calls_per_second: Option<NonZeroU32>,
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
    pub limits: LimitsInForce,
    /// The database; `None` while it is unavailable.
    pub database: Option<DatabaseInfo>,
    /// The caller of the request.
    pub caller: Caller,
}
