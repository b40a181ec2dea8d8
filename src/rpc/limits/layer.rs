//! Turns calls away while too many are under way.

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
    body::{Answer, Request},
    permit::{ByteBudget, Permit},
};
use crate::{
    domain::error::{Error, internal},
    proto::{Method, is_infrastructure_rpc},
    rpc::transport::peer::Peer,
};

/// How many answers without end there may be, of watches of the health and of
/// reflection, in all and on one connection: a load balancer has one. They ask nobody for
/// a credential, and each takes some kilobytes.
const STREAMS: usize = 512;
const STREAMS_OF_ONE: usize = 4;

/// Turns calls away while too many are under way, but never those for health and
/// reflection, which have to answer most of all then.
#[derive(Clone)]
pub struct LimitLayer {
    slots: Option<Arc<Semaphore>>,
    streams: Arc<Semaphore>,
    memory: Arc<ByteBudget>,
    longest: Duration,
}

impl LimitLayer {
    /// A layer for calls of which none takes longer than `longest`.
    #[must_use]
    pub fn new(limits: &Limits, longest: Duration) -> Self {
        LimitLayer {
            slots: limits.requests.map(|most| Arc::new(Semaphore::new(most))),
            streams: Arc::new(Semaphore::new(STREAMS)),
            memory: Arc::new(ByteBudget::new(limits.request_bytes)),
            longest,
        }
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited {
            inner,
            limits: self.clone(),
        }
    }
}

/// The service that [`LimitLayer`] makes.
#[derive(Clone)]
pub struct Limited<S> {
    inner: S,
    limits: LimitLayer,
}

impl<S> Service<http::Request<Body>> for Limited<S>
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

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let permit = match self.limits.admit(&request) {
            Ok(permit) => Arc::new(permit),
            Err(error) => return Box::pin(async { Ok(Status::from(error).into_http()) }),
        };
        // The one that is ready, not its clone.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let request = request.map(|body| {
                let permit = Arc::clone(&permit);
                Body::new(Request { body, permit })
            });
            let (head, body) = inner.call(request).await?.into_parts();
            let body = Body::new(Answer::new(body, permit).await);
            Ok(http::Response::from_parts(head, body))
        })
    }
}

impl LimitLayer {
    fn admit<B>(&self, request: &http::Request<B>) -> Result<Permit, Error> {
        let peer = request.extensions().get::<Arc<Peer>>();
        let peer = peer.ok_or_else(|| internal("the request did not come over a connection"))?;
        let path = request.uri().path();
        let memory = Arc::clone(&self.memory);
        if is_infrastructure_rpc(path) {
            let stream = Method::from_path(path).is_stream().then(|| {
                let stream = Arc::clone(&self.streams).try_acquire_owned();
                let stream = stream.ok().filter(|_| peer.open_streams() < STREAMS_OF_ONE);
                stream.ok_or(Error::Overloaded)
            });
            let stream = stream.transpose()?;
            let call = peer.begin_infrastructure_call(stream.is_some());
            return Ok(Permit::new(memory, None, stream, call));
        }
        // Its slot is taken once all of it has come; that there is none is said at once.
        let is_full = |slots: &Arc<Semaphore>| slots.available_permits() == 0;
        if self.slots.as_ref().is_some_and(is_full) {
            return Err(Error::Overloaded);
        }
        let call = peer.begin_call(self.longest);
        Ok(Permit::new(memory, self.slots.clone(), None, call))
    }
}
