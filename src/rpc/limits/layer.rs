//! The limit layer: rejects calls while too many are in progress.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::HeaderMap;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{
    Limits,
    body::{RequestBody, ResponseBody},
    byte_budget::ByteBudget,
    infrastructure::{self, InfrastructureLimits},
    permit::{Permit, is_for_operators},
    slots::{CallSlots, StreamSlots, stream_slots},
};
use crate::{
    db::batch::reservation::Reservation,
    domain::{
        error::{Error, Overload, internal},
        id::TokenId,
    },
    proto::{Method, Rpc, is_infrastructure_rpc},
    rpc::{
        context,
        request_head::header_bytes,
        transport::{backpressure::InWork, peer::Peer},
    },
};

/// Rejects calls while too many are in progress. Health and reflection calls have limits of their own,
/// because an overloaded service must still answer health checks.
#[derive(Clone)]
pub struct LimitLayer {
    slots: Option<CallSlots>,
    streams: StreamSlots,
    infrastructure: Arc<InfrastructureLimits>,
    budget: Arc<ByteBudget>,
    max_duration: Duration,
    known_token: KnownToken,
}

/// Returns the token of a call that is not authenticated yet, if that takes no query. For the log.
pub type KnownToken = Arc<dyn Fn(&HeaderMap, &Peer) -> Option<TokenId> + Send + Sync>;

impl LimitLayer {
    /// Makes a layer for calls that take `max_duration` at most. The log of a rejected call has its
    /// token, if `known_token` returns it.
    #[must_use]
    pub fn new(limits: &Limits, max_duration: Duration, known_token: KnownToken) -> Self {
        let infrastructure = InfrastructureLimits::new(&limits.connection);
        LimitLayer {
            slots: limits.requests.map(CallSlots::new),
            streams: stream_slots(limits.watches),
            infrastructure: Arc::new(infrastructure),
            budget: Arc::new(ByteBudget::new(limits.request_bytes)),
            max_duration,
            known_token,
        }
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = LimitService<S>;

    fn layer(&self, inner: S) -> LimitService<S> {
        LimitService {
            inner,
            limits: self.clone(),
        }
    }
}

/// The service that [`LimitLayer`] makes.
#[derive(Clone)]
pub struct LimitService<S> {
    inner: S,
    limits: LimitLayer,
}

impl<S> Service<http::Request<Body>> for LimitService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let permit = match self.limits.admit(&mut request) {
            Ok(permit) => Arc::new(permit),
            Err(error) => return Box::pin(async { Ok(Status::from(error).into_http()) }),
        };
        // `poll_ready` has made this service ready, but not its clone.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        Box::pin(Arc::clone(&permit).scope(async move {
            let request = request.map(|body| {
                let permit = Arc::clone(&permit);
                Body::new(RequestBody::new(body, permit))
            });
            let (mut head, body) = inner.call(request).await?.into_parts();
            let body = ResponseBody::new(body, Arc::clone(&permit)).await;
            // It is encoded, so from now on the permit counts it.
            head.extensions.remove::<Reservation>();
            if permit.is_rejected() {
                return Ok(Status::from(Error::Overloaded(Overload::ResponseMemory)).into_http());
            }
            Ok(http::Response::from_parts(head, Body::new(body)))
        }))
    }
}

impl LimitLayer {
    fn admit<B>(&self, request: &mut http::Request<B>) -> Result<Permit, Error> {
        let in_work = request.extensions_mut().remove::<Arc<InWork>>();
        let peer = request.extensions().get::<Arc<Peer>>();
        let peer = peer.ok_or_else(|| internal("the request has no peer"))?;
        let path = request.uri().path();
        if is_infrastructure_rpc(path) {
            let method = Method::from_path(path);
            let slot = self.infrastructure.admit(method, peer)?;
            let call = peer.begin_infrastructure_call(method.is_stream());
            let rate = self.infrastructure.reflection_rate(method, peer);
            infrastructure::strip(request);
            if let Some(rate) = rate {
                request.extensions_mut().insert(rate);
            }
            // Their messages are small and their streams few, and they need no credential. So they
            // have no part in the budget of the other calls.
            let budget = Arc::new(ByteBudget::new(None));
            return Ok(Permit::new(budget, None, call).with_infrastructure_slot(slot));
        }
        // A call takes its slot only when its request is complete, so that slow clients
        // cannot hold all slots. It is rejected now if none is free. Whether an administrator calls is
        // not known yet.
        let rpc = Rpc::from_path(path);
        let is_full = self.slots.as_ref().is_some_and(CallSlots::is_full);
        if is_full && !rpc.is_some_and(is_for_operators) {
            if let Some(token_id) = (self.known_token)(request.headers(), peer) {
                context::set_token_id(token_id);
            }
            return Err(Error::Overloaded(Overload::CallsInProgress));
        }
        let is_stream = rpc.is_some_and(Rpc::is_stream);
        let call = match is_stream {
            true => peer.begin_stream(self.max_duration),
            false => peer.begin_call(self.max_duration),
        };
        let budget = Arc::clone(&self.budget);
        let permit =
            Permit::new(budget, self.slots.clone(), call).with_rpc(rpc, header_bytes(request));
        permit.set_in_work(in_work);
        let streams = is_stream.then(|| Arc::clone(&self.streams));
        Ok(permit.with_stream(streams))
    }
}
