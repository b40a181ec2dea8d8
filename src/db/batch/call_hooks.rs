//! What the batches of a call ask it before they start, and tell it when they are done.

use std::sync::Weak;

use tokio::task::futures::TaskLocalFuture;

use crate::domain::error::Result;

tokio::task_local! {
    static CURRENT: Weak<dyn CallHooks>;
}

/// A call whose items wait for a batch.
pub trait CallHooks: Send + Sync {
    /// Checks whether items may run: a limit may be used up since the call was accepted. Nothing has
    /// been written for them. Parts of a call run in several batches, and all get the first answer.
    ///
    /// # Errors
    /// The answer to the call, if its items may not run.
    fn before_start(&self, is_part: bool) -> Result<()>;

    /// Notes that items are answered, with documents of this size in bytes.
    fn answered(&self, bytes: usize);
}

/// Calls the hooks for the items that `work` submits. A weak reference, because the items may wait for
/// longer than their call.
pub fn with_hooks<F: Future>(
    hooks: Weak<dyn CallHooks>,
    work: F,
) -> TaskLocalFuture<Weak<dyn CallHooks>, F> {
    CURRENT.scope(hooks, work)
}

/// Returns the hooks of the current call; `None` outside of a call.
pub(super) fn current() -> Option<Weak<dyn CallHooks>> {
    CURRENT.try_with(Weak::clone).ok()
}
