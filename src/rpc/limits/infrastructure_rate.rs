//! The rate of health and reflection calls, which need no credential.
//!
//! A health check costs about as much as a read by key. Each client therefore has a budget of them. A
//! reflection stream carries any number of requests, and each of them costs several health checks. They
//! have a budget of their own, so that reflection does not use up the budget for health checks.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::ConnectionLimits;
use crate::{
    proto::Method,
    util::{
        budget::{Budget, TimedBudget},
        client_table::ClientTable,
    },
};

/// The time for which a client may save its rate, and make all these calls at once.
const BURST_SECONDS: u32 = 2;

/// The health and reflection calls of all clients.
pub(super) struct InfrastructureRate {
    health: ClientTable<TimedBudget>,
    reflection: ClientTable<TimedBudget>,
}

/// Makes a table of budgets that gain so much per second.
fn budgets(per_second: u32) -> ClientTable<TimedBudget> {
    let max = per_second.saturating_mul(BURST_SECONDS).into();
    let new = move || TimedBudget::new(Budget::new(max, max, per_second.into()));
    ClientTable::new(new, TimedBudget::is_full)
}

impl InfrastructureRate {
    /// Makes the rates of clients that have made no calls.
    pub(super) fn new(limits: &ConnectionLimits) -> Self {
        InfrastructureRate {
            health: budgets(limits.health_rate),
            reflection: budgets(limits.reflection_rate),
        }
    }

    /// Counts a call. Returns false if the client has made too many.
    pub(super) fn try_call(&self, method: Method, address: IpAddr) -> bool {
        let table = match method.is_health() {
            true => &self.health,
            false => &self.reflection,
        };
        table.with(address, TimedBudget::try_spend_one)
    }
}

/// The rate of the requests of a reflection stream.
#[derive(Clone)]
pub struct ReflectionRate {
    all: Arc<InfrastructureRate>,
    address: IpAddr,
}

impl ReflectionRate {
    /// Makes the rate of a stream from an address.
    pub(super) fn new(all: Arc<InfrastructureRate>, address: IpAddr) -> Self {
        ReflectionRate { all, address }
    }

    /// Returns the rate of the stream that a request begins; `None` if it has none.
    #[must_use]
    pub fn of<T>(request: &tonic::Request<T>) -> Option<Self> {
        request.extensions().get().cloned()
    }

    /// Counts a request. Waits until its client may make it: the next one of the stream is not read
    /// before.
    pub async fn request(&self) {
        if let Some(wait) = self.spend() {
            tokio::time::sleep(wait).await;
        }
    }

    fn spend(&self) -> Option<Duration> {
        let table = &self.all.reflection;
        table.with(self.address, TimedBudget::spend_one)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

    /// Makes calls until one is rejected. Returns how many were not.
    fn admitted(rate: &InfrastructureRate, path: &str, address: IpAddr) -> usize {
        let method = Method::from_path(path);
        let calls = (0..10_000).take_while(|_| rate.try_call(method, address));
        calls.count()
    }

    fn rate() -> InfrastructureRate {
        InfrastructureRate {
            health: budgets(500),
            reflection: budgets(100),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_client_has_a_rate_of_health_calls() {
        let rate = rate();
        assert_eq!(admitted(&rate, CHECK, HERE), 1000);
        assert_eq!(admitted(&rate, REFLECTION, HERE), 200);
        assert_eq!(admitted(&rate, CHECK, [192, 0, 2, 1].into()), 1000);
        advance(Duration::from_secs(1)).await;
        assert_eq!(admitted(&rate, CHECK, HERE), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn the_requests_of_reflection_streams_wait_for_their_rate() {
        let rate = Arc::new(rate());
        let begun = Instant::now();
        let streams = [(); 4].map(|()| ReflectionRate::new(Arc::clone(&rate), HERE));
        for _ in 0..100 {
            let requests = streams.each_ref().map(ReflectionRate::request);
            futures_util::future::join_all(requests).await;
        }
        // 200 are free, and each second pays for 100.
        let seconds = begun.elapsed().as_secs_f64();
        assert!((1.9..2.1).contains(&seconds), "{seconds}");
        assert_eq!(admitted(&rate, CHECK, HERE), 1000);
    }
}
