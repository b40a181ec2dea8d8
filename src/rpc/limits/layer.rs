//! The limit layer: rejects calls while too many are in progress.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{
    Limits,
    body::{RequestBody, ResponseBody},
    permit::{ByteBudget, Permit},
};
use crate::{
    db::batch::reservation::Reservation,
    domain::{
        error::{Error, internal},
        role::Role,
    },
    proto::{Method, Rpc, is_infrastructure_rpc},
    rpc::transport::{backpressure::InWork, peer::Peer},
};

/// Maximum number of health watches and reflection streams, in total and on one connection.
/// They need no credential, and each takes some kilobytes. A load balancer needs one.
const MAX_STREAMS: usize = 512;
const MAX_CONNECTION_STREAMS: usize = 4;

/// Rejects calls while too many are in progress. Health and reflection calls are not
/// limited, because an overloaded service must still answer health checks.
#[derive(Clone)]
pub struct LimitLayer {
    slots: Option<Arc<Semaphore>>,
    streams: Arc<Semaphore>,
    budget: Arc<ByteBudget>,
    max_duration: Duration,
}

impl LimitLayer {
    /// Makes a layer for calls that take `max_duration` at most.
    #[must_use]
    pub fn new(limits: &Limits, max_duration: Duration) -> Self {
        LimitLayer {
            slots: limits.requests.map(|limit| Arc::new(Semaphore::new(limit))),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            budget: Arc::new(ByteBudget::new(limits.request_bytes)),
            max_duration,
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
                Body::new(RequestBody { body, permit })
            });
            let (mut head, body) = inner.call(request).await?.into_parts();
            let body = ResponseBody::new(body, Arc::clone(&permit)).await;
            // It is encoded, so from now on the permit counts it.
            head.extensions.remove::<Reservation>();
            if permit.is_rejected() {
                return Ok(Status::from(Error::Overloaded).into_http());
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
            let stream = Method::from_path(path).is_stream().then(|| {
                let stream = Arc::clone(&self.streams).try_acquire_owned();
                let stream = stream
                    .ok()
                    .filter(|_| peer.open_streams() < MAX_CONNECTION_STREAMS);
                stream.ok_or(Error::Overloaded)
            });
            let stream = stream.transpose()?;
            let call = peer.begin_infrastructure_call(stream.is_some());
            // Their messages are small and their streams few, and they need no credential. So they
            // have no part in the budget of the other calls.
            let budget = Arc::new(ByteBudget::new(None));
            return Ok(Permit::new(budget, None, stream, false, call));
        }
        // A call takes its slot only when its request is complete, so that slow clients
        // cannot hold all slots. It is rejected now if none is free.
        let is_full = |slots: &Arc<Semaphore>| slots.available_permits() == 0;
        if self.slots.as_ref().is_some_and(is_full) {
            return Err(Error::Overloaded);
        }
        let call = peer.begin_call(self.max_duration);
        let is_read = Rpc::from_path(path).is_some_and(|rpc| rpc.role() == Role::Reader);
        let budget = Arc::clone(&self.budget);
        let slots = self.slots.clone();
        let permit = Permit::new(budget, slots, None, is_read, call);
        permit.set_in_work(in_work);
        Ok(permit)
    }
}
