//! The context of a call: its request id, and what the logs need to know of it.
//!
//! The context is a task-local value that [`super::call`] sets. Only `rpc` reads it; the
//! services and the database get what they need as arguments.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use tokio::task::futures::TaskLocalFuture;
use uuid::Uuid;

use crate::{
    domain::{error::Cause, id::TokenId, quota::QuotaChange},
    util::excerpt::{MAX_VALUE, excerpt},
};

tokio::task_local! {
    static CURRENT: CallContext;
}

/// The context of one call. Cheap to clone; all clones share what is noted. A value is
/// absent if the call was rejected, or its caller went away, before it became known. Values of
/// the caller are valid or excerpts, because every line of the log and every span has them.
#[derive(Debug, Clone)]
pub struct CallContext(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    request_id: Uuid,
    token_id: OnceLock<TokenId>,
    is_administrator: AtomicBool,
    target_token_id: OnceLock<TokenId>,
    target_quota: OnceLock<QuotaChange>,
    namespace: OnceLock<String>,
    correlation_id: OnceLock<String>,
    stream_cause: OnceLock<Arc<Cause>>,
}

impl CallContext {
    /// Makes the context of a call that begins, with a new request id. `correlation_id`
    /// is the one of the call's headers.
    #[must_use]
    pub fn new(correlation_id: Option<&str>) -> Self {
        CallContext(Arc::new(Inner {
            request_id: Uuid::now_v7(),
            token_id: OnceLock::new(),
            is_administrator: AtomicBool::new(false),
            target_token_id: OnceLock::new(),
            target_quota: OnceLock::new(),
            namespace: OnceLock::new(),
            correlation_id: correlation_id.map(noted).unwrap_or_default(),
            stream_cause: OnceLock::new(),
        }))
    }

    /// Runs `work` as part of this call.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), work)
    }

    /// Makes `work` part of this call.
    pub fn scope<F: Future>(&self, work: F) -> TaskLocalFuture<CallContext, F> {
        CURRENT.scope(self.clone(), work)
    }

    /// Returns the id that the call's response and log lines carry.
    #[must_use]
    pub fn request_id(&self) -> Uuid {
        self.0.request_id
    }

    /// Returns the token that the call is made with.
    #[must_use]
    pub fn token_id(&self) -> Option<TokenId> {
        self.0.token_id.get().copied()
    }

    /// Returns whether an administrator makes the call.
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        self.0.is_administrator.load(Ordering::Relaxed)
    }

    /// Returns the token that the call of an administrator concerns.
    #[must_use]
    pub fn target_token_id(&self) -> Option<TokenId> {
        self.0.target_token_id.get().copied()
    }

    /// Returns the quota that the call of an administrator sets.
    #[must_use]
    pub fn target_quota(&self) -> Option<QuotaChange> {
        self.0.target_quota.get().copied()
    }

    /// Returns the namespace that the call names.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0.namespace.get().map(String::as_str)
    }

    /// Returns the correlation id of the call's headers, or else of its message.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        self.0.correlation_id.get().map(String::as_str)
    }

    /// Returns the internal cause of the failure of the call's stream.
    #[must_use]
    pub fn stream_cause(&self) -> Option<&Cause> {
        self.0.stream_cause.get().map(|cause| &**cause)
    }
}

/// Returns the request id of the current call; outside of a call, a new id.
#[must_use]
pub fn request_id() -> Uuid {
    let current = CURRENT.try_with(CallContext::request_id);
    current.unwrap_or_else(|_| Uuid::now_v7())
}

/// Notes which token the current call is made with.
pub fn set_token_id(token_id: TokenId) {
    note(|call| {
        let _ = call.token_id.set(token_id);
    });
}

/// Notes that an administrator makes the current call.
pub fn set_administrator() {
    note(|call| call.is_administrator.store(true, Ordering::Relaxed));
}

/// Notes which token the current call of an administrator concerns.
pub fn set_target_token_id(token_id: TokenId) {
    note(|call| {
        let _ = call.target_token_id.set(token_id);
    });
}

/// Notes which quota the current call of an administrator sets.
pub fn set_target_quota(values: QuotaChange) {
    note(|call| {
        let _ = call.target_quota.set(values);
    });
}

/// Notes which valid namespace the current call names. The whole of it, because two namespaces
/// may differ only in their ends.
pub fn set_namespace(namespace: &str) {
    note(|call| drop(call.namespace.set(namespace.to_owned())));
}

/// Notes the correlation id of the current call, unless its headers have one.
pub fn set_correlation_id(correlation_id: &str) {
    note(|call| {
        // An empty one is as good as none.
        if !correlation_id.is_empty() {
            let _ = call.correlation_id.set(excerpt(correlation_id, MAX_VALUE));
        }
    });
}

/// Notes the internal cause of the failure of the current call's stream.
pub fn set_stream_cause(cause: &Arc<Cause>) {
    note(|call| {
        let _ = call.stream_cause.set(Arc::clone(cause));
    });
}

fn noted(value: &str) -> OnceLock<String> {
    OnceLock::from(excerpt(value, MAX_VALUE))
}

fn note(set: impl FnOnce(&Inner)) {
    // Does nothing outside of a call.
    let _ = CURRENT.try_with(|call| set(&call.0));
}
