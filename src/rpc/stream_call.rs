//! A call that is answered by a stream: what it checks and waits for while it is open.

use std::{io, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    admit::{FromRequest, admit},
    auth::{AuthenticatedCall, Caller, token_cache::TokenCache},
    context,
    limits::has_room,
    quota::CallQuota,
    status::internal_cause,
    transport::peer::Peer,
};
use crate::{
    domain::{
        error::{Error, Result, internal},
        namespace::{Namespace, Scoped},
    },
    proto::TenantRequest,
};

/// Interval of the checks of the token. The cache reads a token in use again every 2 s, so a revocation
/// ends a stream within 5 s.
const CHECK_INTERVAL: Duration = Duration::from_millis(2500);
/// How long a check may delay the stream, and its bookmarks.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a stream goes on without a successful check. A short outage of the database ends no stream,
/// and a token that cannot be checked sees nothing for longer.
const MAX_UNCHECKED: Duration = Duration::from_secs(15);

/// A call whose stream is open. It counts against the quotas for as long as it lasts.
pub struct StreamCall {
    call: AuthenticatedCall,
    namespace: Namespace,
    token_cache: Option<TokenCache>,
    closing: CancellationToken,
    deadline: Option<Instant>,
    check_at: Instant,
    /// When the token was last found valid.
    checked_at: Instant,
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
        deadline: admitted.deadline.map(Into::into),
        check_at: Instant::now() + CHECK_INTERVAL,
        checked_at: Instant::now(),
        _quota: quota,
    };
    Ok((admitted, stream))
}

/// Makes the response of a stream. Notes the internal cause of its failure for the log, because tonic
/// sends the status without it.
pub fn respond_stream<T: 'static>(
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Response<BoxStream<'static, Result<T, Status>>> {
    let stream = stream.inspect_err(|status| {
        if let Some(cause) = internal_cause(status) {
            context::set_stream_cause(cause);
        }
    });
    Response::new(stream.boxed())
}

impl StreamCall {
    /// Returns when the next check is due.
    #[must_use]
    pub fn check_at(&self) -> Instant {
        self.check_at
    }

    /// Checks again that the token is valid and covers the namespace. If that cannot be found out, the
    /// last successful check holds for 15 s.
    ///
    /// # Errors
    /// Those of authentication and authorisation, and [`Error::DatabaseUnavailable`] if no check has
    /// succeeded for 15 s.
    pub async fn check(&mut self) -> Result<()> {
        let token = timeout(CHECK_TIMEOUT, self.find_caller()).await;
        let now = Instant::now();
        self.check_at = now + CHECK_INTERVAL;
        let failure: Arc<dyn std::error::Error + Send + Sync> = match token {
            Ok(Ok(caller)) => {
                self.call.caller = caller;
                self.checked_at = now;
                return self.authorize();
            }
            Ok(Err(error @ Error::Unauthenticated(_))) => return Err(error),
            Ok(Err(error)) => Arc::new(error),
            Err(_) => Arc::new(io::Error::other("the token was not found in time")),
        };
        match now - self.checked_at < MAX_UNCHECKED {
            true => Ok(()),
            false => Err(Error::DatabaseUnavailable(failure)),
        }
    }

    /// Returns the caller, with the token as it is now.
    async fn find_caller(&self) -> Result<Caller> {
        Ok(match (&self.token_cache, self.call.caller.token_id()) {
            (Some(token_cache), Some(id)) => Caller::Token(token_cache.by_id(id).await?),
            _ => self.call.caller.clone(),
        })
    }

    /// Checks that the caller may watch the namespace.
    fn authorize(&self) -> Result<()> {
        self.call.require_role(Some(&self.namespace))?;
        match Namespace::is_registry(self.namespace.as_str()) {
            true => Ok(()),
            false => self.call.require_namespace(&self.namespace),
        }
    }

    /// Returns whether there is memory for a message of this many bytes until the client takes it. What
    /// its token has left unread counts.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        has_room(bytes)
    }

    /// Waits until the connection begins to close.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Waits until the caller's deadline has passed, if there is one.
    pub async fn deadline(&self) {
        match self.deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}
