//! How many of the connections for queries one tenant may have at a time, so that its
//! slow lists do not keep those of others waiting.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{DbError, pool::LEASE_PATIENCE};

/// The shares of those tenants that have any. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shares {
    each: usize,
    by_namespace: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

impl Shares {
    /// All of so many connections but one, for each; if there is only one, that one.
    pub(super) fn of(connections: u32) -> Self {
        let each = connections.saturating_sub(1).max(1);
        Shares {
            each: usize::try_from(each).unwrap_or(usize::MAX),
            by_namespace: Arc::default(),
        }
    }

    /// A part of a tenant's share, for which a caller waits for at most 1 s.
    pub(super) async fn take(&self, namespace: &str) -> Result<OwnedSemaphorePermit, DbError> {
        let share = self.share(namespace);
        let part = timeout(LEASE_PATIENCE, share.acquire_owned()).await;
        part.ok().and_then(Result::ok).ok_or(DbError::Busy)
    }

    /// It is there for as long as somebody has a part of it, or waits for one.
    fn share(&self, namespace: &str) -> Arc<Semaphore> {
        let shares = self.by_namespace.lock();
        let mut shares = shares.unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(namespace).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.each));
        shares.insert(namespace.to_owned(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tenant_gets_all_but_one_and_leaves_nothing_behind() {
        let shares = Shares::of(3);
        let held = [
            shares.take("red").await.unwrap(),
            shares.take("red").await.unwrap(),
        ];
        assert!(matches!(shares.take("red").await, Err(DbError::Busy)));
        let other = shares.take("blue").await.unwrap();
        drop((held, other));
        drop(shares.take("green").await.unwrap());
        assert_eq!(shares.by_namespace.lock().unwrap().len(), 1);
    }
}
