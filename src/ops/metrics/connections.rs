//! Connections of clients.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry, opts};

use super::register;

/// Connections of clients. Cheap to clone.
#[derive(Clone)]
pub struct ConnectionMetrics {
    /// Those that there are.
    pub open: IntGauge,
    /// All that came.
    pub accepted: IntCounter,
    /// Those that were closed, or only told so, because there are too many.
    pub refused_at_limit: IntCounter,
    /// Those that could not agree with us on TLS.
    pub refused_handshake: IntCounter,
}

impl ConnectionMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let open = IntGauge::new("bridgebook_connections", "Connections of clients.")?;
        let accepted = IntCounter::new(
            "bridgebook_connections_accepted_total",
            "Connections of clients that were accepted.",
        )?;
        let refused = opts!(
            "bridgebook_connections_refused_total",
            "Connections of clients that were turned away: there are too many (limit), or they \
             could not agree on TLS (handshake)."
        );
        let refused = register(registry, IntCounterVec::new(refused, &["cause"])?)?;
        Ok(ConnectionMetrics {
            open: register(registry, open)?,
            accepted: register(registry, accepted)?,
            refused_at_limit: refused.with_label_values(&["limit"]),
            refused_handshake: refused.with_label_values(&["handshake"]),
        })
    }
}
