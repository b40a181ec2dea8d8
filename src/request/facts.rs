//! What becomes known of a call while it is served, for whoever reads the log.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::CURRENT;
use crate::id::TokenId;

/// What becomes known of a call while it is served. What was not reached, because the
/// call was refused or its caller went away, is not there.
#[derive(Debug, Default)]
pub struct Facts {
    pub(crate) token_id: OnceLock<TokenId>,
    pub(crate) touched_token_id: OnceLock<TokenId>,
    pub(crate) namespace: OnceLock<String>,
    pub(crate) correlation_id: OnceLock<String>,
    cause: Mutex<Option<String>>,
}

impl Facts {
    /// Why it failed, or an item of it, beyond what the caller is told; the first cause.
    pub(crate) fn cause(&self) -> Option<String> {
        self.lock_cause().clone()
    }

    fn lock_cause(&self) -> MutexGuard<'_, Option<String>> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes which token the call is made with.
pub fn made_with(token_id: TokenId) {
    note(|facts| {
        let _ = facts.token_id.set(token_id);
    });
}

/// Notes which token an administrator creates or revokes.
pub fn touches(token_id: TokenId) {
    note(|facts| {
        let _ = facts.touched_token_id.set(token_id);
    });
}

/// Notes for which namespace the call is.
pub fn is_for(namespace: &str) {
    note(|facts| drop(facts.namespace.set(namespace.to_owned())));
}

/// Notes to which of its caller's affairs the call belongs.
pub fn correlates(correlation_id: &str) {
    note(|facts| drop(facts.correlation_id.set(correlation_id.to_owned())));
}

/// Notes why the call, or an item of it, fails: what the caller is not told.
pub fn fails_because(cause: String) {
    note(|facts| {
        facts.lock_cause().get_or_insert(cause);
    });
}

fn note(fact: impl FnOnce(&Arc<Facts>)) {
    // What is done for nobody's call has nobody to tell.
    let _ = CURRENT.try_with(|current| fact(&current.facts));
}
