//! Settings of limits.

use std::{num::NonZeroU32, time::Duration};

use clap::Args;

use super::setting::{ConfigErrors, NetworkList, Number, Seconds, take};
use crate::{
    domain::{
        json,
        limits::{ContentLimits, MAX_BATCH, MAX_MESSAGE, MAX_RESPONSE, MAX_ROWS},
        quota::{QuotaDefaults, QuotaLimits},
    },
    rpc::limits::{ConnectionLimits, Limits},
    util::net::KnownClients,
};

/// Limits of connections, calls and contents. docs/limits.md lists them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitSettings {
    /// Keep at most this many connections with an authenticated call open.
    #[arg(long, env = "BRIDGEBOOK_MAX_CONNECTIONS", value_name = "N", default_value = "4096")]
    max_connections: Number<1, MAX_COUNT>,

    /// Allow this many concurrent calls on one connection; clients queue further calls.
    #[arg(long, env = "BRIDGEBOOK_MAX_STREAMS", value_name = "N", default_value = "256")]
    max_streams: Number<1, MAX_COUNT>,

    /// Accept at most this many bytes of headers in a call.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_HEADER_SIZE",
        value_name = "BYTES",
        default_value = "16384"
    )]
    max_header_size: Number<MIN_HEADER, { 1024 * 1024 }>,

    /// Allow this many concurrent calls on all connections together; 0 for no limit.
    #[arg(long, env = "BRIDGEBOOK_MAX_REQUESTS", value_name = "N", default_value = "4096")]
    max_requests: Number<0, MAX_COUNT>,

    /// Allow this many open streams of the journal (WatchTransitions). One token may have four fifths
    /// of them.
    #[arg(long, env = "BRIDGEBOOK_MAX_WATCHES", value_name = "N", default_value = "16384")]
    max_watches: Number<1, MAX_COUNT>,

    /// Hold at most this many MiB of requests and responses of calls in progress; 0 for no
    /// limit.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_REQUEST_MEMORY",
        value_name = "MIB",
        default_value = "256"
    )]
    max_request_memory: Number<0, { MAX_COUNT / 1024 }>,

    /// Allow each token this many calls per second; 0 for no limit. SetQuota overrides this and the
    /// next three flags for a token or a namespace.
    #[arg(long, env = "BRIDGEBOOK_MAX_RATE", value_name = "N", default_value = "0")]
    max_rate: Number<0, MAX_COUNT>,

    /// Allow each namespace this many calls per second; 0 for no limit.
    #[arg(long, env = "BRIDGEBOOK_MAX_NAMESPACE_RATE", value_name = "N", default_value = "0")]
    max_namespace_rate: Number<0, MAX_COUNT>,

    /// Allow each namespace this many items per second, in batches and other calls; 0 for no limit.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_NAMESPACE_ITEM_RATE",
        value_name = "N",
        default_value = "0"
    )]
    max_namespace_item_rate: Number<0, MAX_COUNT>,

    /// Allow each namespace this many concurrent calls; 0 for no limit.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_NAMESPACE_REQUESTS",
        value_name = "N",
        default_value = "0"
    )]
    max_namespace_requests: Number<0, MAX_COUNT>,

    /// Accept messages of at most this many bytes.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_MESSAGE_SIZE",
        value_name = "BYTES",
        default_value = "4194304"
    )]
    max_message_size: Number<1024, { MAX_MESSAGE as u64 }>,

    /// Accept JSON documents of at most this many bytes of text.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_JSON_SIZE",
        value_name = "BYTES",
        default_value = "1048576"
    )]
    max_json_size: Number<2, { json::MAX_BYTES as u64 }>,

    /// Accept JSON documents of at most this many levels.
    #[arg(long, env = "BRIDGEBOOK_MAX_JSON_DEPTH", value_name = "N", default_value = "64")]
    max_json_depth: Number<1, { json::MAX_DEPTH as u64 }>,

    /// Accept batches of at most this many items.
    #[arg(long, env = "BRIDGEBOOK_MAX_BATCH_SIZE", value_name = "N", default_value = "1000")]
    max_batch_size: Number<1, { MAX_BATCH as u64 }>,

    /// Return pages of at most this many rows.
    #[arg(long, env = "BRIDGEBOOK_MAX_PAGE_SIZE", value_name = "N", default_value = "1000")]
    max_page_size: Number<1, { MAX_ROWS as u64 }>,

    /// Send HTTP/2 keepalive pings to clients at this interval, in seconds.
    #[arg(
        long,
        env = "BRIDGEBOOK_KEEPALIVE_INTERVAL",
        value_name = "SECONDS",
        default_value = "30"
    )]
    keepalive_interval: Seconds,

    /// Close a connection that does not answer a keepalive ping within this many seconds.
    #[arg(
        long,
        env = "BRIDGEBOOK_KEEPALIVE_TIMEOUT",
        value_name = "SECONDS",
        default_value = "20"
    )]
    keepalive_timeout: Seconds,

    /// Close a connection that has no calls for this many seconds.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_CONNECTION_IDLE",
        value_name = "SECONDS",
        default_value = "900"
    )]
    max_connection_idle: Seconds,

    /// Close a connection that is older than this many seconds; 0 for no limit.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_CONNECTION_AGE",
        value_name = "SECONDS",
        default_value = "3600"
    )]
    max_connection_age: Seconds<0>,

    /// Let calls finish for this many seconds on a connection that is being closed.
    #[arg(
        long,
        env = "BRIDGEBOOK_MAX_CONNECTION_AGE_GRACE",
        value_name = "SECONDS",
        default_value = "60"
    )]
    max_connection_age_grace: Seconds,

    /// Always answer health calls from these networks, such as 10.0.0.0/8,2001:db8::/32: those of your
    /// load balancers. Others share a number of watches, and have a rate per address.
    #[arg(
        long,
        env = "BRIDGEBOOK_HEALTH_FROM",
        value_name = "CIDR[,CIDR]",
        default_value = "",
        hide_default_value = true
    )]
    health_from: NetworkList,

    /// Do not limit the rate of refused calls and of health and reflection calls from these networks:
    /// those of your proxies, each of which stands for many clients.
    #[arg(
        long,
        env = "BRIDGEBOOK_PROXY_FROM",
        value_name = "CIDR[,CIDR]",
        default_value = "",
        hide_default_value = true
    )]
    proxy_from: NetworkList,
}

/// The upper bound of settings that need none; larger numbers are taken for mistakes.
const MAX_COUNT: u64 = u32::MAX as u64 / 2;
/// The smallest limit of headers, in bytes: a credential and gRPC's own headers fit.
const MIN_HEADER: u64 = 1024;
/// Maximum duration of the TLS handshake, then of the HTTP/2 preface, and later of the headers of a
/// call. All need a few round trips, so even a slow network has time for retransmissions.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Health calls per second of one address. Load balancers make some per second and replica, even if
/// many processes of one machine do. A thousand calls cost some 20 ms of a core.
const HEALTH_RATE: u32 = 500;
/// Reflection requests per second of one address. Tools that read the whole contract make some 50.
const REFLECTION_RATE: u32 = 100;
/// Time for the first authenticated call of a connection over the limit. A shorter time
/// makes rejected clients reconnect more often.
const UNAUTHENTICATED_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time in which a client does not read an answer that is ready. A stream that is not read ends
/// by itself before, while the client reads others.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum interval of the checks of a connection. It is shorter where the limits are.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl LimitSettings {
    /// Checks the settings. The value is a placeholder if an error is noted.
    pub(super) fn check(&self, errors: &mut ConfigErrors) -> Limits {
        let mebibytes: usize = take!(errors, self.max_request_memory);
        let request_bytes = (mebibytes > 0).then_some(mebibytes * 1024 * 1024);
        let message_bytes: usize = take!(errors, self.max_message_size);
        // Of requests, one token gets four fifths of it at most; of responses, half.
        let needed = 2 * message_bytes.max(MAX_RESPONSE);
        if request_bytes.is_some_and(|it| it < needed) {
            errors.push(format!(
                "--max-request-memory: must be 0, or at least 8 MiB and twice --max-message-size, so that \
                 one request or response fits into the share of a token; got {mebibytes} MiB"
            ));
        }
        Limits {
            connection: self.connection(errors),
            content: ContentLimits {
                message_bytes,
                json_bytes: take!(errors, self.max_json_size),
                json_depth: take!(errors, self.max_json_depth),
                batch_items: take!(errors, self.max_batch_size),
                page_rows: take!(errors, self.max_page_size),
            },
            requests: Some(take!(errors, self.max_requests)).filter(|it| *it > 0),
            request_bytes,
            watches: take!(errors, self.max_watches),
            quotas: self.quotas(errors),
        }
    }

    fn quotas(&self, errors: &mut ConfigErrors) -> QuotaDefaults {
        QuotaDefaults {
            namespace: QuotaLimits {
                calls_per_second: NonZeroU32::new(take!(errors, self.max_namespace_rate)),
                items_per_second: NonZeroU32::new(take!(errors, self.max_namespace_item_rate)),
                calls_in_progress: NonZeroU32::new(take!(errors, self.max_namespace_requests)),
            },
            token: QuotaLimits {
                calls_per_second: NonZeroU32::new(take!(errors, self.max_rate)),
                ..QuotaLimits::default()
            },
        }
    }

    fn connection(&self, errors: &mut ConfigErrors) -> ConnectionLimits {
        let max_idle: Duration = take!(errors, self.max_connection_idle);
        let max_age: Duration = take!(errors, self.max_connection_age);
        let max_age = Some(max_age).filter(|it| !it.is_zero());
        let shortest = max_idle.min(max_age.unwrap_or(max_idle));
        ConnectionLimits {
            connections: take!(errors, self.max_connections),
            streams: take!(errors, self.max_streams),
            header_bytes: take!(errors, self.max_header_size),
            keepalive_interval: take!(errors, self.keepalive_interval),
            keepalive_timeout: take!(errors, self.keepalive_timeout),
            max_idle,
            max_age,
            grace: take!(errors, self.max_connection_age_grace),
            known_clients: KnownClients {
                health: take!(errors, self.health_from),
                proxies: take!(errors, self.proxy_from),
            },
            health_rate: HEALTH_RATE,
            reflection_rate: REFLECTION_RATE,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            unauthenticated_timeout: UNAUTHENTICATED_TIMEOUT,
            stall_timeout: STALL_TIMEOUT,
            check_interval: MAX_CHECK_INTERVAL.min(shortest / 4),
        }
    }
}
