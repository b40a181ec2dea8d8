//! The auth layer: authenticates each call before any of its message is read.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, header::AUTHORIZATION};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{
    AuthenticatedCall, Caller, certificate::CertificateMapping, credential::Credential,
    token_cache::TokenCache,
};
use crate::{
    domain::{
        error::{CredentialError, Error, Result},
        id::TokenId,
        role::Role,
    },
    proto::{Rpc, is_infrastructure_rpc},
    rpc::{context, limits, transport::peer::Peer},
    util::net::is_loopback,
};

/// The authentication scheme, which is case-insensitive (RFC 9110, section 11.1).
const SCHEME: &str = "bearer ";

/// Authenticates every call except health and reflection, which expose no tenant data.
#[derive(Clone)]
pub struct AuthLayer {
    /// The tokens; `None` if the service runs without them.
    pub token_cache: Option<TokenCache>,
    /// The tokens of client certificates.
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
        // `poll_ready` has made this service ready, but not its clone.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            let rpc = Rpc::from_path(request.uri().path());
            if rpc.is_none() && is_infrastructure_rpc(request.uri().path()) {
                return inner.call(request).await;
            }
            let peer = request.extensions().get::<Arc<Peer>>();
            let (headers, mapping) = (request.headers(), &layer.certificate_mapping);
            let presented = Presented::of(headers, peer.map(|peer| &**peer), mapping);
            let caller = match layer.authenticate(presented, peer).await {
                Ok(caller) => caller,
                Err(error) => return Ok(Status::from(error).into_http()),
            };
            if let Some(token_cache) = &layer.token_cache
                && rpc.is_some_and(Rpc::is_stream)
            {
                request.extensions_mut().insert(token_cache.clone());
            }
            request
                .extensions_mut()
                .insert(AuthenticatedCall { caller, rpc });
            inner.call(request).await
        })
    }
}

impl AuthLayer {
    /// Returns a function that finds the token of a call without a query, for the log.
    #[must_use]
    pub fn known_tokens(&self) -> limits::KnownToken {
        let layer = self.clone();
        Arc::new(move |headers, peer| layer.known_token(headers, peer))
    }

    /// Returns the token that a call is made with, if the cache has it: one with which other calls were
    /// made in the last minute, and whose secret this call has.
    fn known_token(&self, headers: &HeaderMap, peer: &Peer) -> Option<TokenId> {
        let token_cache = self.token_cache.as_ref()?;
        let presented = Presented::of(headers, Some(peer), &self.certificate_mapping);
        match presented.ok()? {
            Presented::Credential(credential) => {
                token_cache.knows(&credential).then_some(credential.id)
            }
            Presented::Certificate(token_id) => Some(token_id),
        }
    }

    async fn authenticate(
        &self,
        presented: Result<Presented>,
        peer: Option<&Arc<Peer>>,
    ) -> Result<Caller> {
        let named = presented.as_ref().ok().map(Presented::token_id);
        let caller = self.caller(presented).await;
        // The id of an unknown token is not logged, because it may not be the caller's.
        let is_unknown = matches!(
            caller,
            Err(Error::Unauthenticated(CredentialError::Unknown))
        );
        if let Some(token_id) = named.filter(|_| self.token_cache.is_some() && !is_unknown) {
            context::set_token_id(token_id);
        }
        let caller = caller?;
        if let Some(peer) = peer {
            let has_admin_token =
                matches!(&caller, Caller::Token(it) if it.role.known() == Some(Role::Admin));
            peer.slot.authenticate(caller.token_id(), has_admin_token)?;
        }
        let is_administrator = is_administrator(&caller, peer);
        if is_administrator {
            context::set_administrator();
        }
        limits::set_caller(caller.token_id(), is_administrator)?;
        Ok(caller)
    }

    async fn caller(&self, presented: Result<Presented>) -> Result<Caller> {
        let Some(token_cache) = &self.token_cache else {
            return Ok(Caller::Anyone);
        };
        let token = match presented? {
            Presented::Credential(credential) => token_cache.by_credential(&credential).await?,
            Presented::Certificate(token_id) => token_cache.by_id(token_id).await?,
        };
        Ok(Caller::Token(token))
    }
}

/// Returns whether the caller may call AdminService, without tokens by its address.
fn is_administrator(caller: &Caller, peer: Option<&Arc<Peer>>) -> bool {
    match caller {
        Caller::Token(token) => token.role.known() == Some(Role::Admin),
        Caller::Anyone => peer.is_some_and(|peer| is_loopback(peer.address)),
    }
}

/// The proof of identity that a call presents.
enum Presented {
    /// A token's credential.
    Credential(Credential),
    /// A client certificate that is mapped to this token.
    Certificate(TokenId),
}

impl Presented {
    fn of(headers: &HeaderMap, peer: Option<&Peer>, mapping: &CertificateMapping) -> Result<Self> {
        let mut headers = headers.get_all(AUTHORIZATION).iter();
        match (headers.next(), headers.next()) {
            (Some(header), None) => {
                let credential = header.to_str().ok().and_then(bearer);
                let credential = credential.ok_or(rejected(CredentialError::Malformed))?;
                Ok(Presented::Credential(credential))
            }
            // A repeated header is ambiguous.
            (Some(_), Some(_)) => Err(rejected(CredentialError::Malformed)),
            (None, _) => {
                let subject = peer.and_then(|peer| peer.subject.as_deref());
                let subject = subject.ok_or(rejected(CredentialError::Missing))?;
                let token_id = mapping.token_of(subject);
                let token_id = token_id.ok_or(rejected(CredentialError::CertificateUnmapped))?;
                Ok(Presented::Certificate(token_id))
            }
        }
    }

    fn token_id(&self) -> TokenId {
        match self {
            Presented::Credential(credential) => credential.id,
            Presented::Certificate(token_id) => *token_id,
        }
    }
}

fn rejected(error: CredentialError) -> Error {
    Error::Unauthenticated(error)
}

fn bearer(header: &str) -> Option<Credential> {
    let (scheme, credential) = header.split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| Credential::parse(credential.trim()))
        .flatten()
}
