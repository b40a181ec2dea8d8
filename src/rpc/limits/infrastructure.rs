//! The limits of health and reflection calls, which need no credential.

use std::sync::Arc;

use http::{
    HeaderMap, Request,
    header::{CONTENT_TYPE, HeaderName, TE},
};

use crate::{
    domain::error::Error,
    proto::Method,
    rpc::transport::peer::Peer,
    util::{
        net::Networks,
        shares::{Share, Shares},
    },
};

/// Maximum number of health watches. Each takes some kilobytes.
const MAX_WATCHES: usize = 512;
/// Maximum number of reflection streams. People use them by hand, for seconds.
const MAX_REFLECTION_STREAMS: usize = 64;
/// Maximum number of health checks in progress. A check is answered at once, unless its client does
/// not send the message.
const MAX_CHECKS: usize = 4096;
/// Maximum number of health watches and reflection streams on one connection. A load balancer needs
/// one.
const MAX_CONNECTION_STREAMS: usize = 4;

/// The headers that a call of health or reflection needs. The others would be kept for as long as it
/// lasts.
const NEEDED_HEADERS: [HeaderName; 4] = [
    CONTENT_TYPE,
    TE,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
];

/// The places of health and reflection calls, of which each address has a share.
pub(super) struct InfrastructureLimits {
    /// The load balancers, whose health calls need no place.
    health_from: Networks,
    watches: Arc<Shares>,
    reflection: Arc<Shares>,
    checks: Arc<Shares>,
}

impl InfrastructureLimits {
    /// Makes free places. The health calls of `health_from` need none.
    pub(super) fn new(health_from: Networks) -> Self {
        InfrastructureLimits {
            health_from,
            watches: Shares::new(MAX_WATCHES),
            reflection: Shares::new(MAX_REFLECTION_STREAMS),
            checks: Shares::new(MAX_CHECKS),
        }
    }

    /// Takes a place for a call, if it needs one.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if the share of the client's address has none.
    pub(super) fn admit(&self, method: Method, peer: &Peer) -> Result<Option<Share>, Error> {
        let address = peer.address.ip();
        if method.is_health() && self.health_from.contains(address) {
            return Ok(None);
        }
        let is_stream = method.is_stream();
        if is_stream && peer.open_streams() >= MAX_CONNECTION_STREAMS {
            return Err(Error::Overloaded);
        }
        let place = self.shares(method).take(address, 1);
        place.map(Some).ok_or(Error::Overloaded)
    }

    fn shares(&self, method: Method) -> &Arc<Shares> {
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
