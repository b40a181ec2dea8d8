//! The settings of the limits.

use std::{num::NonZeroU32, time::Duration};

use clap::Args;

use super::{number, seconds};
use crate::{
    domain::{
        json,
        limits::{ContentLimits, MAX_BATCH, MAX_MESSAGE, MAX_ROWS},
    },
    rpc::limits::{ConnectionLimits, Limits},
};

/// The limits as they are given. docs/limits.md has a table of them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitSettings {
    /// Maximum number of connections with an authenticated call.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_CONNECTIONS",
        value_name = "N",
        default_value = "4096"
    )]
    max_connections: String,

    /// How many calls a connection may have under way; clients let more wait.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_STREAMS",
        value_name = "N",
        default_value = "256"
    )]
    max_streams: String,

    /// How many bytes of headers a call may have.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_HEADER_SIZE",
        value_name = "BYTES",
        default_value = "16384"
    )]
    max_header_size: String,

    /// How many calls may be under way, on all connections together; 0 for any number.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_REQUESTS",
        value_name = "N",
        default_value = "4096"
    )]
    max_requests: String,

    /// How many MiB the requests and the answers of the calls under way may have
    /// together; 0 for any number.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_REQUEST_MEMORY",
        value_name = "MIB",
        default_value = "256"
    )]
    max_request_memory: String,

    /// How many calls a token may make in a second; 0 for any number.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_RATE",
        value_name = "N",
        default_value = "0"
    )]
    max_rate: String,

    /// How many bytes a message may have.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_MESSAGE_SIZE",
        value_name = "BYTES",
        default_value = "4194304"
    )]
    max_message_size: String,

    /// How many bytes of text a JSON document may have.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_JSON_SIZE",
        value_name = "BYTES",
        default_value = "1048576"
    )]
    max_json_size: String,

    /// How many levels a JSON document may have.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_JSON_DEPTH",
        value_name = "N",
        default_value = "64"
    )]
    max_json_depth: String,

    /// How many items a batch may have.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_BATCH_SIZE",
        value_name = "N",
        default_value = "1000"
    )]
    max_batch_size: String,

    /// How many rows a page may have.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_PAGE_SIZE",
        value_name = "N",
        default_value = "1000"
    )]
    max_page_size: String,

    /// How often a client is asked whether it is still there, in seconds.
    #[arg(
        long,
        env = "BRIDGEBOOK_KEEPALIVE_INTERVAL",
        value_name = "SECONDS",
        default_value = "30"
    )]
    keepalive_interval: String,

    /// How long it has to answer that, in seconds.
    #[arg(
        long,
        env = "BRIDGEBOOK_KEEPALIVE_TIMEOUT",
        value_name = "SECONDS",
        default_value = "20"
    )]
    keepalive_timeout: String,

    /// For how long a connection may be without calls, in seconds.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_CONNECTION_IDLE",
        value_name = "SECONDS",
        default_value = "900"
    )]
    max_connection_idle: String,

    /// How old a connection may get, in seconds; 0 for any age.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_CONNECTION_AGE",
        value_name = "SECONDS",
        default_value = "3600"
    )]
    max_connection_age: String,

    /// How long calls may go on on a connection that is to be closed, in seconds.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_CONNECTION_AGE_GRACE",
        value_name = "SECONDS",
        default_value = "60"
    )]
    max_connection_age_grace: String,
}

/// More than this is none; a machine has not so much of anything here.
const ANY: u64 = u32::MAX as u64 / 2;
/// What a header needs at least: a credential and what gRPC says itself.
const MIN_HEADER: u64 = 1024;
/// Maximum duration of the TLS handshake, and then of the HTTP/2 preface. Both need a few
/// round trips, so even a slow network has time for retransmissions.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the first authenticated call of a connection over the limit. A shorter time
/// makes rejected clients reconnect more often.
const UNAUTHENTICATED_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time in which a client does not read an answer that is ready.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum interval of the checks of a connection. It is shorter where the limits are.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(10);

impl LimitSettings {
    /// Checks them; notes all faults.
    pub(super) fn check(&self, faults: &mut Vec<String>) -> Limits {
        let mut whole = |flag: &str, text: &str, least: u64, most: u64| {
            let number = number(faults, flag, text, least..=most);
            usize::try_from(number).unwrap_or(usize::MAX)
        };
        let content = ContentLimits {
            message_bytes: whole(
                "--max-message-size",
                &self.max_message_size,
                1024,
                as_u64(MAX_MESSAGE),
            ),
            json_bytes: whole(
                "--max-json-size",
                &self.max_json_size,
                2,
                as_u64(json::MAX_BYTES),
            ),
            json_depth: whole(
                "--max-json-depth",
                &self.max_json_depth,
                1,
                as_u64(json::MAX_DEPTH),
            ),
            batch_items: whole(
                "--max-batch-size",
                &self.max_batch_size,
                1,
                as_u64(MAX_BATCH),
            ),
            page_rows: i32::try_from(whole(
                "--max-page-size",
                &self.max_page_size,
                1,
                MAX_ROWS.unsigned_abs().into(),
            ))
            .unwrap_or(MAX_ROWS),
        };
        let connections = whole("--max-connections", &self.max_connections, 1, ANY);
        let streams = whole("--max-streams", &self.max_streams, 1, ANY);
        let header_bytes = whole(
            "--max-header-size",
            &self.max_header_size,
            MIN_HEADER,
            1024 * 1024,
        );
        let requests = whole("--max-requests", &self.max_requests, 0, ANY);
        let mebibytes = whole(
            "--max-request-memory",
            &self.max_request_memory,
            0,
            ANY / 1024,
        );
        let rate = whole("--max-rate", &self.max_rate, 0, ANY);
        let mut time = |flag, text: &str| seconds(faults, flag, text);
        let keepalive_interval = time("--keepalive-interval", &self.keepalive_interval);
        let keepalive_timeout = time("--keepalive-timeout", &self.keepalive_timeout);
        let max_idle = time("--max-connection-idle", &self.max_connection_idle);
        let grace = time("--max-connection-age-grace", &self.max_connection_age_grace);
        let max_age = match self.max_connection_age.as_str() {
            "0" => None,
            text => Some(seconds(faults, "--max-connection-age", text)),
        };
        let shortest = max_idle.min(max_age.unwrap_or(max_idle));
        Limits {
            connection: ConnectionLimits {
                connections,
                streams: u32::try_from(streams).unwrap_or(u32::MAX),
                header_bytes: u32::try_from(header_bytes).unwrap_or(u32::MAX),
                handshake_timeout: HANDSHAKE_TIMEOUT,
                unauthenticated_timeout: UNAUTHENTICATED_TIMEOUT,
                keepalive_interval,
                keepalive_timeout,
                max_idle,
                max_age,
                grace,
                stall_timeout: STALL_TIMEOUT,
                check_interval: MAX_CHECK_INTERVAL.min(shortest / 4),
            },
            content,
            requests: (requests > 0).then_some(requests),
            request_bytes: (mebibytes > 0).then_some(mebibytes * 1024 * 1024),
            rate: u32::try_from(rate).ok().and_then(NonZeroU32::new),
        }
    }
}

fn as_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
