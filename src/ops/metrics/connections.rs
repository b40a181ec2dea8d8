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
    /// Connections whose TLS handshake failed.
    pub refused_handshake: IntCounter,
    /// Connections that were closed because their client flooded them with frames.
    pub refused_flood: IntCounter,
    /// Connections that were closed because too many of their calls had no valid credential.
    pub refused_calls: IntCounter,
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
            "Client connections rejected, evicted or closed, by cause: too many connections (limit), a \
             failed TLS handshake (handshake), a flood of frames or of incomplete headers (flood), or too \
             many calls without a valid credential (refused_calls)."
        );
        let refused = register(registry, IntCounterVec::new(refused, &["cause"])?)?;
        Ok(ConnectionMetrics {
            open: register(registry, open)?,
            accepted: register(registry, accepted)?,
            refused_at_limit: refused.with_label_values(&["limit"]),
            refused_handshake: refused.with_label_values(&["handshake"]),
            refused_flood: refused.with_label_values(&["flood"]),
            refused_calls: refused.with_label_values(&["refused_calls"]),
        })
    }
}
