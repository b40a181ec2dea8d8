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

/// The quota of those tenants that have any. Cheap to clone.
#[derive(Clone)]
pub(super) struct TenantQuota {
    each: usize,
    by_namespace: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

impl TenantQuota {
    /// All of so many connections but one, for each; if there is only one, that one.
    pub(super) fn new(connections: u32) -> Self {
        let each = connections.saturating_sub(1).max(1);
        TenantQuota {
            each: usize::try_from(each).unwrap_or(usize::MAX),
            by_namespace: Arc::default(),
        }
    }

    /// A part of a tenant's share, for which a caller waits for at most 1 s.
    pub(super) async fn acquire(&self, namespace: &str) -> Result<OwnedSemaphorePermit, DbError> {
        let share = self.share(namespace);
        let part = timeout(LEASE_PATIENCE, share.acquire_owned()).await;
        part.ok().and_then(Result::ok).ok_or(DbError::Busy)
    }

    /// It is there for as long as somebody has a part of it, or waits for one.
    fn share(&self, namespace: &str) -> Arc<Semaphore> {
        let quota = self.by_namespace.lock();
        let mut quota = quota.unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = quota.get(namespace).and_then(Weak::upgrade) {
            return share;
        }
        quota.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.each));
        quota.insert(namespace.to_owned(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tenant_gets_all_but_one_and_leaves_nothing_behind() {
        let quota = TenantQuota::new(3);
        let held = [
            quota.acquire("red").await.unwrap(),
            quota.acquire("red").await.unwrap(),
        ];
        assert!(matches!(quota.acquire("red").await, Err(DbError::Busy)));
        let other = quota.acquire("blue").await.unwrap();
        drop((held, other));
        drop(quota.acquire("green").await.unwrap());
        assert_eq!(quota.by_namespace.lock().unwrap().len(), 1);
    }
}
