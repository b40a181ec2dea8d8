//! The tenant quota: how many connections for queries one tenant may use at a time.
//!
//! Slow lists of one tenant do not block those of others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{DbError, lease::LEASE_TIMEOUT};

/// The semaphores of the tenants that use connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct TenantQuota {
    per_tenant: usize,
    by_namespace: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

impl TenantQuota {
    /// Allows each tenant all connections but one, and at least one.
    pub(super) fn new(connections: u32) -> Self {
        let per_tenant = connections.saturating_sub(1).max(1);
        TenantQuota {
            per_tenant: usize::try_from(per_tenant).unwrap_or(usize::MAX),
            by_namespace: Arc::default(),
        }
    }

    /// Acquires a permit for one connection of a tenant. Waits for at most 1 s.
    pub(super) async fn acquire(&self, namespace: &str) -> Result<OwnedSemaphorePermit, DbError> {
        let semaphore = self.semaphore(namespace);
        let permit = timeout(LEASE_TIMEOUT, semaphore.acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or(DbError::Busy)
    }

    /// Returns the semaphore of a tenant, which exists while a query holds or awaits a permit.
    fn semaphore(&self, namespace: &str) -> Arc<Semaphore> {
        let semaphores = self.by_namespace.lock();
        let mut semaphores = semaphores.unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = semaphores.get(namespace).and_then(Weak::upgrade) {
            return semaphore;
        }
        semaphores.retain(|_, semaphore| semaphore.strong_count() > 0);
        let semaphore = Arc::new(Semaphore::new(self.per_tenant));
        semaphores.insert(namespace.to_owned(), Arc::downgrade(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tenant_gets_all_connections_but_one_and_unused_semaphores_are_dropped() {
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
