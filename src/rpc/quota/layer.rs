//! The quota layer: refuses calls over the quota of their token, before their message is read.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::Quotas;
use crate::rpc::auth::AuthenticatedCall;

/// Gives each authenticated call its [`CallQuota`](super::CallQuota), among the extensions of the
/// request. The call counts as in progress until its response is ready, or it is cancelled.
#[derive(Clone)]
pub struct QuotaLayer(pub Quotas);

impl<S> Layer<S> for QuotaLayer {
    type Service = QuotaService<S>;

    fn layer(&self, inner: S) -> QuotaService<S> {
        QuotaService {
            inner,
            quotas: self.0.clone(),
        }
    }
}

/// The service that [`QuotaLayer`] makes.
#[derive(Clone)]
pub struct QuotaService<S> {
    inner: S,
    quotas: Quotas,
}

impl<S, B> Service<http::Request<B>> for QuotaService<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        // `poll_ready` has made this service ready, but not its clone.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        // Calls of health and reflection have no caller, and no quota.
        let Some(call) = request.extensions().get::<AuthenticatedCall>() else {
            return Box::pin(inner.call(request));
        };
        let quota = match self.quotas.begin_call(call.caller.token_id(), call.rpc) {
            Ok(quota) => Arc::new(quota),
            Err(error) => return Box::pin(async { Ok(Status::from(error).into_http()) }),
        };
        request.extensions_mut().insert(Arc::clone(&quota));
        Box::pin(async move {
            let response = inner.call(request).await;
            drop(quota);
            response
        })
    }
}
