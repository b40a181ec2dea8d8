//! A call that is answered by a stream: what it checks and waits for while it is open.

use std::{sync::Arc, time::Instant};

use tokio_util::sync::CancellationToken;
use tonic::Request;

use super::{
    admit::{FromRequest, admit},
    auth::{AuthenticatedCall, Caller, token_cache::TokenCache},
    quota::CallQuota,
    transport::peer::Peer,
};
use crate::{
    domain::{
        error::{Error, Result, internal},
        namespace::{Namespace, Scoped},
    },
    proto::TenantRequest,
};

/// A call whose stream is open. It counts against the quotas for as long as it lasts.
pub struct StreamCall {
    call: AuthenticatedCall,
    namespace: Namespace,
    token_cache: Option<TokenCache>,
    closing: CancellationToken,
    deadline: Option<Instant>,
    _quota: Option<Arc<CallQuota>>,
}

/// Admits a request as [`admit`] does. Also returns its call.
///
/// # Errors
/// Those of [`admit`].
pub fn admit_stream<R, T>(request: Request<R>) -> Result<(Scoped<T>, StreamCall), Error>
where
    R: TenantRequest,
    T: FromRequest<R>,
{
    let extensions = request.extensions();
    let call = extensions.get::<AuthenticatedCall>().cloned();
    let call = call.ok_or_else(|| internal("the request did not pass the auth layer"))?;
    let peer = extensions.get::<Arc<Peer>>();
    let peer = peer.ok_or_else(|| internal("the request has no peer"))?;
    let closing = peer.closing.clone();
    let token_cache = extensions.get::<TokenCache>().cloned();
    let quota = extensions.get::<Arc<CallQuota>>().cloned();
    let admitted: Scoped<T> = admit(request)?;
    let stream = StreamCall {
        call,
        namespace: admitted.namespace.clone(),
        token_cache,
        closing,
        deadline: admitted.deadline,
        _quota: quota,
    };
    Ok((admitted, stream))
}

impl StreamCall {
    /// Checks again that the token is valid and covers the namespace.
    ///
    /// # Errors
    /// Those of authentication and authorisation. Not those of the database, whose outage ends no
    /// stream.
    pub async fn check(&mut self) -> Result<()> {
        let (Some(token_cache), Some(id)) = (&self.token_cache, self.call.caller.token_id()) else {
            return Ok(());
        };
        match token_cache.by_id(id).await {
            Ok(token) => self.call.caller = Caller::Token(token),
            Err(error @ Error::Unauthenticated(_)) => return Err(error),
            Err(_) => return Ok(()),
        }
        self.call.require_role(Some(&self.namespace))?;
        match Namespace::is_registry(self.namespace.as_str()) {
            true => Ok(()),
            false => self.call.require_namespace(&self.namespace),
        }
    }

    /// Waits until the connection begins to close.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Waits until the caller's deadline has passed, if there is one.
    pub async fn deadline(&self) {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    }
}
