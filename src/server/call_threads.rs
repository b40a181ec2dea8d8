//! The threads of connections and calls.
//!
//! Batch workers, health checks and the background tasks have the threads of the main runtime. Under
//! overload, connections have more to do than all cores can. On the same threads a batch would wait
//! behind all of it, and a health check that is late would look like an outage of the database.

use std::{future::Future, panic::resume_unwind};

use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};

use super::ServeError;

/// Threads with a runtime of their own. Their tasks end when the value is dropped.
pub(super) struct CallThreads(Option<Runtime>);

impl CallThreads {
    /// Starts as many threads as there are cores.
    pub(super) fn start() -> Result<Self, ServeError> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.thread_name("calls").enable_all().build();
        runtime
            .map(|runtime| CallThreads(Some(runtime)))
            .map_err(ServeError::Threads)
    }

    /// Runs a task on these threads, from now on. A panic of the task is one of the caller.
    pub(super) fn run(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        let handle = self.0.as_ref().map(|runtime| runtime.spawn(task));
        Box::pin(async {
            let Some(handle) = handle else { return };
            if let Err(error) = handle.await
                && error.is_panic()
            {
                resume_unwind(error.into_panic());
            }
        })
    }
}

impl Drop for CallThreads {
    fn drop(&mut self) {
        // A runtime that is dropped waits for its threads, which a task must not do.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
