//! Metrics of client connections.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry, opts};

use super::register;

/// Metrics of client connections. Cheap to clone.
#[derive(Clone)]
pub struct ConnectionMetrics {
    /// Open connections.
    pub open: IntGauge,
    /// Accepted connections.
    pub accepted: IntCounter,
    /// Connections that were rejected or evicted because of the limit.
    pub refused_at_limit: IntCounter,
    /// Connections of tokens over their share that were closed for other tokens.
    pub refused_for_share: IntCounter,
    /// Connections whose TLS handshake failed.
    pub refused_handshake: IntCounter,
    /// Connections that were closed because their client flooded them with frames.
    pub refused_flood: IntCounter,
    /// Connections that were closed because too many of their calls had no valid credential.
    pub refused_calls: IntCounter,
    /// Times that a connection was not read because too many calls were in work.
    pub paused_by_backpressure: IntCounter,
    /// Times that a connection was not read because its client had reset too many calls.
    pub paused_for_resets: IntCounter,
    /// New connections that waited because their client had made too many calls without a valid
    /// credential.
    pub paused_for_refused_calls: IntCounter,
}

impl ConnectionMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let open = IntGauge::new("bridgebook_connections", "Open client connections.")?;
        let accepted = IntCounter::new(
            "bridgebook_connections_accepted_total",
            "Accepted client connections.",
        )?;
        let refused = opts!(
            "bridgebook_connections_refused_total",
            "Client connections rejected, evicted or closed, by cause: too many connections (limit), \
             more than the share of its token (share), a failed TLS handshake (handshake), a flood of \
             frames or of incomplete headers (flood), or too many calls without a valid credential \
             (refused_calls)."
        );
        let refused = register(registry, IntCounterVec::new(refused, &["cause"])?)?;
        let pauses = opts!(
            "bridgebook_connection_pauses_total",
            "Times that a client connection was not read for a moment, by cause: too many calls in work \
             (backpressure), too many streams that the client has reset (resets), or too many calls \
             without a valid credential, after which new connections wait (refused_calls)."
        );
        let pauses = register(registry, IntCounterVec::new(pauses, &["cause"])?)?;
        Ok(ConnectionMetrics {
            open: register(registry, open)?,
            accepted: register(registry, accepted)?,
            refused_at_limit: refused.with_label_values(&["limit"]),
            refused_for_share: refused.with_label_values(&["share"]),
            refused_handshake: refused.with_label_values(&["handshake"]),
            refused_flood: refused.with_label_values(&["flood"]),
            refused_calls: refused.with_label_values(&["refused_calls"]),
            paused_by_backpressure: pauses.with_label_values(&["backpressure"]),
            paused_for_resets: pauses.with_label_values(&["resets"]),
            paused_for_refused_calls: pauses.with_label_values(&["refused_calls"]),
        })
    }
}
