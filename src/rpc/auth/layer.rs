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
    AuthenticatedCall, Caller, certificate::CertificateMapping, credential::Credential,
    token_cache::TokenCache,
};
use crate::rpc::context;
use crate::{
    domain::{
        error::{CredentialError, Error, Result},
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
pub struct AuthLayer {
    /// Who knows the tokens; `None` to ask nobody for one.
    pub token_cache: Option<TokenCache>,
    /// Which tokens certificates stand for.
    pub certificate_mapping: CertificateMapping,
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> AuthService<S> {
        AuthService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`AuthLayer`] makes.
#[derive(Clone)]
pub struct AuthService<S> {
    inner: S,
    layer: AuthLayer,
}

impl<S, B> Service<http::Request<B>> for AuthService<S>
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
            let caller = layer.caller(shown).await.and_then(|caller| {
                if let Some(peer) = request.extensions().get::<Arc<Peer>>() {
                    peer.slot.authenticate()?;
                }
                Ok(caller)
            });
            let caller = match caller {
                Ok(caller) => caller,
                Err(error) => return Ok(refusal(error, named)),
            };
            if let Some(token_id) = caller.token_id() {
                context::set_token_id(token_id);
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
    let is_unknown = matches!(error, Error::Unauthenticated(CredentialError::Unknown));
    if let Some(token_id) = named.filter(|_| !is_unknown) {
        context::set_token_id(token_id);
    }
    Status::from(error).into_http()
}

impl AuthLayer {
    fn shown<B>(&self, request: &http::Request<B>) -> Result<Shown> {
        let mut headers = request.headers().get_all(AUTHORIZATION).iter();
        match (headers.next(), headers.next()) {
            (Some(header), None) => {
                let credential = header.to_str().ok().and_then(bearer);
                let credential = credential.ok_or(refused(CredentialError::Malformed))?;
                Ok(Shown::Credential(credential))
            }
            // Which of them is meant is not for us to choose.
            (Some(_), Some(_)) => Err(refused(CredentialError::Malformed)),
            (None, _) => {
                let peer = request.extensions().get::<Arc<Peer>>();
                let subject = peer.and_then(|peer| peer.subject.as_deref());
                let subject = subject.ok_or(refused(CredentialError::Missing))?;
                let token_id = self.certificate_mapping.token_of(subject);
                let token_id = token_id.ok_or(refused(CredentialError::CertificateUnmapped))?;
                Ok(Shown::Certificate(token_id))
            }
        }
    }

    async fn caller(&self, shown: Result<Shown>) -> Result<Caller> {
        let Some(token_cache) = &self.token_cache else {
            return Ok(Caller::Anyone);
        };
        let token = match shown? {
            Shown::Credential(credential) => token_cache.by_credential(&credential).await?,
            Shown::Certificate(token_id) => token_cache.by_certificate(token_id).await?,
        };
        Ok(Caller::Token(token))
    }
}

fn refused(fault: CredentialError) -> Error {
    Error::Unauthenticated(fault)
}

fn bearer(header: &str) -> Option<Credential> {
    let (scheme, credential) = header.split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| Credential::parse(credential.trim()))
        .flatten()
}
