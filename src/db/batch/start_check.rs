//! The check of a call just before its items run: a limit may be used up since it was accepted.

use std::sync::Arc;

use tokio::task::futures::TaskLocalFuture;

use crate::domain::error::Result;

tokio::task_local! {
    static CURRENT: Arc<dyn StartCheck>;
}

/// Decides whether the items of a call may run.
pub trait StartCheck: Send + Sync {
    /// Checks a call. Nothing has been written for it.
    ///
    /// # Errors
    /// The answer to the call, if its items may not run.
    fn check_start(&self) -> Result<()>;
}

/// Checks the items that `work` submits.
pub fn with_check<F: Future>(
    check: Arc<dyn StartCheck>,
    work: F,
) -> TaskLocalFuture<Arc<dyn StartCheck>, F> {
    CURRENT.scope(check, work)
}

/// Returns the check of the current call; `None` outside of a call.
pub(super) fn current() -> Option<Arc<dyn StartCheck>> {
    CURRENT.try_with(Arc::clone).ok()
}
