//! The usage of a quota by its tenant or token, on this replica.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::bucket::Bucket;
use crate::{
    domain::{
        quota::{QuotaLimit, QuotaLimits, SubjectLimits},
        role::Role,
    },
    proto::Rpc,
};

/// The shortest retry delay: calls in progress have to end first, and retries at once would only be
/// refused again.
const MIN_RETRY: Duration = Duration::from_millis(50);

/// The longest retry delay. After a large batch, the rate may need minutes to catch up. A caller that
/// asks again every few seconds costs little, and notices soon that the quota was raised or deleted.
const MAX_RETRY: Duration = Duration::from_secs(5);

/// The calls that count together, with their items. Heartbeats count apart from all other calls, so
/// that a tenant that exceeds its quota does not lose its nodes. So do calls of AdminService, so that
/// an operator can lift a quota although other calls of the same token exceed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Heartbeats, and registrations, which count as such.
    Heartbeat,
    /// Calls of AdminService.
    Admin,
    /// All other calls.
    Other,
}

impl Kind {
    /// Returns the kind of an RPC.
    pub(super) fn of(rpc: Option<Rpc>) -> Self {
        match rpc {
            Some(
                Rpc::RegistryServiceHeartbeat
                | Rpc::RegistryServiceBatchHeartbeat
                | Rpc::RegistryServiceRegisterNode,
            ) => Kind::Heartbeat,
            Some(rpc) if rpc.role() == Role::Admin => Kind::Admin,
            _ => Kind::Other,
        }
    }
}

/// The part of a quota that a call takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Charge {
    call: bool,
    items: u32,
}

impl Charge {
    /// A call, whose items are not known yet.
    pub(super) fn call() -> Self {
        Charge::call_with_items(0)
    }

    /// A call and its items.
    pub(super) fn call_with_items(items: u32) -> Self {
        Charge { call: true, items }
    }

    /// The items of a call that was charged before.
    pub(super) fn items(items: u32) -> Self {
        Charge { call: false, items }
    }
}

/// The limit that refuses a call.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) limit: QuotaLimit,
    pub(super) value: NonZeroU32,
    /// Whether the value is the default of a setting.
    pub(super) is_default: bool,
    /// The time until it admits a call, as far as that is known.
    pub(super) wait: Duration,
}

impl Refusal {
    /// Returns the delay after which to retry.
    pub(super) fn retry_delay(&self) -> Duration {
        self.wait.clamp(MIN_RETRY, MAX_RETRY)
    }
}

/// The usage of one tenant, or of one token.
#[derive(Debug, Default)]
pub(super) struct Usage {
    heartbeats: Mutex<Counts>,
    admin: Mutex<Counts>,
    others: Mutex<Counts>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    calls: Bucket,
    items: Bucket,
    in_progress: u32,
}

impl Usage {
    pub(super) fn lock(&self, kind: Kind) -> MutexGuard<'_, Counts> {
        let counts = match kind {
            Kind::Heartbeat => &self.heartbeats,
            Kind::Admin => &self.admin,
            Kind::Other => &self.others,
        };
        counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call as in progress until the value is dropped. `counts` are those of its kind.
    pub(super) fn begin_call(self: Arc<Self>, kind: Kind, counts: &mut Counts) -> InProgress {
        counts.in_progress += 1;
        InProgress { usage: self, kind }
    }
}

impl Counts {
    /// Returns the limit that refuses a call for longest, if there is one.
    pub(super) fn refusal(
        &self,
        SubjectLimits { limits, set }: &SubjectLimits,
        charge: Charge,
        now: Instant,
    ) -> Option<Refusal> {
        let rate = |limit, bucket: &Bucket, rate: Option<NonZeroU32>| {
            let value = rate?;
            let wait = bucket.wait(value, now);
            (!wait.is_zero()).then_some(Refusal {
                limit,
                value,
                is_default: !set.has(limit),
                wait,
            })
        };
        let in_progress = || {
            let limit = QuotaLimit::CallsInProgress;
            let value = limits.calls_in_progress?;
            (self.in_progress >= value.get()).then_some(Refusal {
                limit,
                value,
                is_default: !set.has(limit),
                wait: MIN_RETRY,
            })
        };
        let calls = QuotaLimit::CallsPerSecond;
        let items = QuotaLimit::ItemsPerSecond;
        let calls = || rate(calls, &self.calls, limits.calls_per_second);
        let items = || rate(items, &self.items, limits.items_per_second);
        let refusals = [
            charge.call.then(in_progress).flatten(),
            charge.call.then(calls).flatten(),
            (charge.items > 0).then(items).flatten(),
        ];
        refusals.into_iter().flatten().max_by_key(|it| it.wait)
    }

    /// Takes what a call needs, even beyond the limits.
    pub(super) fn take(&mut self, limits: &QuotaLimits, charge: Charge, now: Instant) {
        if let Some(rate) = limits.calls_per_second.filter(|_| charge.call) {
            self.calls.take(1, rate, now);
        }
        if let Some(rate) = limits.items_per_second {
            self.items.take(charge.items, rate, now);
        }
    }
}

/// A call in progress, until it is dropped.
#[derive(Debug)]
pub(super) struct InProgress {
    usage: Arc<Usage>,
    kind: Kind,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut counts = self.usage.lock(self.kind);
        counts.in_progress = counts.in_progress.saturating_sub(1);
    }
}
