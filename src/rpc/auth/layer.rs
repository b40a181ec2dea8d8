//! Finds out who makes a call, before anything of it is read.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{
    AuthenticatedCall, Caller, certificate::Identities, credential::Credential,
    token_cache::Verifier,
};
use crate::rpc::context;
use crate::{
    domain::{
        error::{CredentialFault, Error, Result},
        id::TokenId,
    },
    proto::{Rpc, is_infrastructure_rpc},
    rpc::transport::peer::Peer,
};

/// How a credential is announced; the case does not matter (RFC 9110).
const SCHEME: &str = "bearer ";

/// Lets no call in of which it does not know who makes it, but for health and
/// reflection, which tell nobody anything of a tenant.
#[derive(Clone)]
pub struct AccessLayer {
    /// Who knows the tokens; `None` to ask nobody for one.
    pub verifier: Option<Verifier>,
    /// Which tokens certificates stand for.
    pub identities: Identities,
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`AccessLayer`] makes.
#[derive(Clone)]
pub struct Access<S> {
    inner: S,
    layer: AccessLayer,
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
        let layer = self.layer.clone();
        Box::pin(async move {
            let rpc = Rpc::from_path(request.uri().path());
            if rpc.is_none() && is_infrastructure_rpc(request.uri().path()) {
                return inner.call(request).await;
            }
            let shown = layer.shown(&request);
            let named = shown.as_ref().ok().map(Shown::token_id);
            let caller = match layer.caller(shown).await {
                Ok(caller) => caller,
                Err(error) => return Ok(refusal(error, named)),
            };
            if let Some(token_id) = caller.token_id() {
                context::set_token_id(token_id);
            }
            if let Some(peer) = request.extensions().get::<Arc<Peer>>() {
                peer.guest.is_known();
            }
            request
                .extensions_mut()
                .insert(AuthenticatedCall { caller, rpc });
            inner.call(request).await
        })
    }
}

/// What a caller shows.
enum Shown {
    /// Its token's secret.
    Credential(Credential),
    /// A certificate that stands for this token.
    Certificate(TokenId),
}

impl Shown {
    fn token_id(&self) -> TokenId {
        match self {
            Shown::Credential(credential) => credential.id,
            Shown::Certificate(token_id) => *token_id,
        }
    }
}

/// Answers a caller that is not let in; `named` is the token that it named, which
/// the log keeps unless it may be none of the caller's.
fn refusal(error: Error, named: Option<TokenId>) -> http::Response<Body> {
    let is_unknown = matches!(error, Error::Unauthenticated(CredentialFault::Unknown));
    if let Some(token_id) = named.filter(|_| !is_unknown) {
        context::set_token_id(token_id);
    }
    Status::from(error).into_http()
}

impl AccessLayer {
    fn shown<B>(&self, request: &http::Request<B>) -> Result<Shown> {
        let mut headers = request.headers().get_all(AUTHORIZATION).iter();
        match (headers.next(), headers.next()) {
            (Some(header), None) => {
                let credential = header.to_str().ok().and_then(bearer);
                let credential = credential.ok_or(refused(CredentialFault::Malformed))?;
                Ok(Shown::Credential(credential))
            }
            // Which of them is meant is not for us to choose.
            (Some(_), Some(_)) => Err(refused(CredentialFault::Malformed)),
            (None, _) => {
                let peer = request.extensions().get::<Arc<Peer>>();
                let subject = peer.and_then(|peer| peer.subject.as_deref());
                let subject = subject.ok_or(refused(CredentialFault::Missing))?;
                let token_id = self.identities.token_of(subject);
                let token_id = token_id.ok_or(refused(CredentialFault::CertificateUnmapped))?;
                Ok(Shown::Certificate(token_id))
            }
        }
    }

    async fn caller(&self, shown: Result<Shown>) -> Result<Caller> {
        let Some(verifier) = &self.verifier else {
            return Ok(Caller::Anyone);
        };
        let token = match shown? {
            Shown::Credential(credential) => verifier.by_secret(&credential).await?,
            Shown::Certificate(token_id) => verifier.by_certificate(token_id).await?,
        };
        Ok(Caller::Token(token))
    }
}

fn refused(fault: CredentialFault) -> Error {
    Error::Unauthenticated(fault)
}

fn bearer(header: &str) -> Option<Credential> {
    let (scheme, credential) = header.split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| Credential::parse(credential.trim()))
        .flatten()
}
