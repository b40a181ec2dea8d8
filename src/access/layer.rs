//! Finds out who makes a call, before anything of it is read.

use std::{
    mem,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, header::AUTHORIZATION};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{Call, Caller, credential::Credential, verifier::Verifier};
use crate::{
    error::{CredentialFault, Error, Result},
    proto::Rpc,
};

/// How a credential is announced; the case does not matter (RFC 9110).
const SCHEME: &str = "bearer ";

/// Lets no call in of which it does not know who makes it, but for health and
/// reflection, which tell nobody anything of a tenant.
#[derive(Clone)]
pub struct AccessLayer {
    /// Who knows the tokens; `None` to ask nobody for one.
    pub verifier: Option<Verifier>,
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access {
            inner,
            verifier: self.verifier.clone(),
        }
    }
}

/// The service that [`AccessLayer`] makes.
#[derive(Clone)]
pub struct Access<S> {
    inner: S,
    verifier: Option<Verifier>,
}

impl<S, B> Service<http::Request<B>> for Access<S>
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
        // The one that is ready, not its clone.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let verifier = self.verifier.clone();
        Box::pin(async move {
            let rpc = Rpc::from_path(request.uri().path());
            if rpc.is_none() && is_for_everybody(request.uri().path()) {
                return inner.call(request).await;
            }
            let caller = match &verifier {
                Some(verifier) => authenticate(verifier, request.headers()).await,
                None => Ok(Caller::Anyone),
            };
            match caller {
                Ok(caller) => {
                    request.extensions_mut().insert(Call { caller, rpc });
                    inner.call(request).await
                }
                Err(error) => Ok(Status::from(error).into_http()),
            }
        })
    }
}

/// Health and reflection.
fn is_for_everybody(path: &str) -> bool {
    path.starts_with("/grpc.")
}

async fn authenticate(verifier: &Verifier, headers: &HeaderMap) -> Result<Caller> {
    let refused = |fault| Err(Error::Unauthenticated(fault));
    let Some(header) = headers.get(AUTHORIZATION) else {
        return refused(CredentialFault::Missing);
    };
    let Some(credential) = header.to_str().ok().and_then(bearer) else {
        return refused(CredentialFault::Malformed);
    };
    Ok(Caller::Token(verifier.by_secret(&credential).await?))
}

fn bearer(header: &str) -> Option<Credential> {
    let (scheme, credential) = header.split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| Credential::parse(credential.trim()))
        .flatten()
}
