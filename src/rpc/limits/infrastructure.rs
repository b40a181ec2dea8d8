//! The limits of health and reflection calls, which need no credential.

use std::{net::IpAddr, sync::Arc};

use http::{
    HeaderMap, Request,
    header::{CONTENT_TYPE, HeaderName, TE},
};

use super::{
    ConnectionLimits,
    infrastructure_rate::{InfrastructureRate, ReflectionRate},
};
use crate::{
    domain::error::{Error, Overload},
    proto::Method,
    rpc::transport::peer::Peer,
    util::{
        net::{KnownClients, client_network},
        shares::{Share, Shares},
    },
};

/// Maximum number of health watches. Each takes some kilobytes.
const MAX_WATCHES: usize = 512;
/// Maximum number of reflection streams. People use them by hand, for seconds.
const MAX_REFLECTION_STREAMS: usize = 64;
/// Maximum number of health checks in progress. A check is answered at once, unless its client does
/// not send the message.
const MAX_CHECKS: usize = 1024;
/// Maximum number of health watches and reflection streams on one connection, unless it is one of a
/// proxy. A load balancer needs one.
const MAX_CONNECTION_STREAMS: usize = 4;

/// The headers that a call of health or reflection needs. The others would be kept for as long as it
/// lasts.
const NEEDED_HEADERS: [HeaderName; 4] = [
    CONTENT_TYPE,
    TE,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
];

/// The slots of health and reflection calls, of which each address has a share, and their rate.
pub(super) struct InfrastructureLimits {
    known: KnownClients,
    watches: Arc<Shares<IpAddr>>,
    reflection: Arc<Shares<IpAddr>>,
    checks: Arc<Shares<IpAddr>>,
    rate: Arc<InfrastructureRate>,
}

impl InfrastructureLimits {
    /// Makes free slots. The health calls of known load balancers need none. The calls of known proxies
    /// have no limit per connection, and no rate.
    pub(super) fn new(limits: &ConnectionLimits) -> Self {
        InfrastructureLimits {
            known: limits.known_clients.clone(),
            watches: Shares::new(MAX_WATCHES),
            reflection: Shares::new(MAX_REFLECTION_STREAMS),
            checks: Shares::new(MAX_CHECKS),
            rate: Arc::new(InfrastructureRate::new(limits)),
        }
    }

    /// Takes a slot for a call, if it needs one.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if the share of the client's address has none, or if the client makes too
    /// many calls per second.
    pub(super) fn admit(
        &self,
        method: Method,
        peer: &Peer,
    ) -> Result<Option<Share<IpAddr>>, Error> {
        let address = peer.address.ip();
        if method.is_health() && self.known.health.contains(address) {
            return Ok(None);
        }
        // The clients of a proxy share its connections and its address.
        if !self.known.proxies.contains(address) {
            if !self.rate.try_call(method, address) {
                return Err(Error::Overloaded(Overload::InfrastructureRate));
            }
            if method.is_stream() && peer.open_streams() >= MAX_CONNECTION_STREAMS {
                return Err(Error::Overloaded(Overload::ConnectionStreams));
            }
        }
        let slot = self.shares(method).take(client_network(address), 1);
        slot.map(Some)
            .ok_or(Error::Overloaded(Overload::InfrastructureCalls))
    }

    /// Returns the rate of the requests of a reflection stream, if it has one.
    pub(super) fn reflection_rate(&self, method: Method, peer: &Peer) -> Option<ReflectionRate> {
        let address = peer.address.ip();
        let has_rate = !method.is_health() && !self.known.proxies.contains(address);
        has_rate.then(|| ReflectionRate::new(Arc::clone(&self.rate), address))
    }

    fn shares(&self, method: Method) -> &Arc<Shares<IpAddr>> {
        match (method.is_health(), method.is_stream()) {
            (true, true) => &self.watches,
            (true, false) => &self.checks,
            (false, _) => &self.reflection,
        }
    }
}

/// Removes the headers that a call of health or reflection does not need.
pub(super) fn strip<B>(request: &mut Request<B>) {
    let mut needed = HeaderMap::new();
    for name in NEEDED_HEADERS {
        if let Some(value) = request.headers_mut().remove(&name) {
            needed.insert(name, value);
        }
    }
    *request.headers_mut() = needed;
}
