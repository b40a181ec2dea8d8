//! Ends a stream whose client does not take its messages, and keeps no rows for it meanwhile.
//!
//! HTTP/2 does not poll a stream while its client has no room for more. So a task of its own looks after
//! the stream.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::time::{Instant, sleep};

use super::{Rest, Sent, Watch, too_slow};

/// How long a client may take for a message while others wait. A stream is ended at most twice as late,
/// before its connection is closed because the client reads nothing for 20 s.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(8);

/// The rest of a stream between two messages: since when it waits for its client. `None` while the
/// next message is made, and after the last one.
struct Slot(Mutex<Option<(Rest, Instant)>>);

/// Returns the messages of a watch.
pub(super) fn stream(watch: Watch) -> impl Stream<Item = Sent> {
    let rest = Rest::Open(Box::new(watch));
    let slot = Arc::new(Slot(Mutex::new(Some((rest, Instant::now())))));
    tokio::spawn(end_when_unread(Arc::downgrade(&slot)));
    stream::unfold(slot, async |slot| {
        let (sent, rest) = slot.take()?.step().await;
        slot.put(rest);
        Some((sent, slot))
    })
}

/// Ends the watch of a stream once its client is too slow. Completes then, or when the stream is over.
async fn end_when_unread(slot: Weak<Slot>) {
    while let Some(wait) = slot.upgrade().and_then(|slot| slot.check()) {
        sleep(wait).await;
    }
}

impl Slot {
    fn take(&self) -> Option<Rest> {
        self.lock().take().map(|(rest, _)| rest)
    }

    fn put(&self, rest: Option<Rest>) {
        *self.lock() = rest.map(|rest| (rest, Instant::now()));
    }

    /// Ends the watch if the client is too slow. Returns when to check again, `None` for never.
    fn check(&self) -> Option<Duration> {
        let mut slot = self.lock();
        let Some((rest, since)) = slot.take() else {
            return Some(UNREAD_TIMEOUT);
        };
        let left = UNREAD_TIMEOUT.saturating_sub(since.elapsed());
        let is_slow = left.is_zero();
        let (rest, next) = match rest {
            Rest::Open(watch) if is_slow => (Rest::Last(watch.end(too_slow)), None),
            Rest::Open(watch) => (Rest::Open(watch), Some(left)),
            Rest::Last(last) => (Rest::Last(last), None),
        };
        *slot = Some((rest, since));
        next
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Rest, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
