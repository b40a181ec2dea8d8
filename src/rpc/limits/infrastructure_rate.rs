//! The rate of health and reflection calls, which need no credential.
//!
//! A health check costs about as much as a read by key. Each client therefore has a budget of them. A
//! reflection stream carries any number of requests, and each of them costs several health checks. They
//! have a budget of their own, so that they do not reject the health checks of their address.

use std::{net::IpAddr, sync::Arc, time::Duration};

use crate::{
    proto::Method,
    util::{
        budget::{Budget, TimedBudget},
        client_table::ClientTable,
    },
};

/// Health calls per second of one client, and how many it may make at once. Load balancers make some
/// per second and replica, even if many processes of one machine do. A thousand calls cost some 20 ms
/// of a core.
const HEALTH_PER_SECOND: f64 = 500.0;
const MAX_HEALTH: f64 = 1000.0;

/// Reflection requests per second of one client, and how many it may make at once: tools that read the
/// whole contract make some 50, at the pace of a person.
const REFLECTION_PER_SECOND: f64 = 50.0;
const MAX_REFLECTION: f64 = 200.0;

/// The health and reflection calls of all clients.
pub(super) struct InfrastructureRate {
    health: ClientTable<TimedBudget>,
    reflection: ClientTable<TimedBudget>,
}

impl Default for InfrastructureRate {
    fn default() -> Self {
        InfrastructureRate {
            health: ClientTable::new(
                || new_budget(MAX_HEALTH, HEALTH_PER_SECOND),
                TimedBudget::is_full,
            ),
            reflection: ClientTable::new(
                || new_budget(MAX_REFLECTION, REFLECTION_PER_SECOND),
                TimedBudget::is_full,
            ),
        }
    }
}

fn new_budget(max: f64, per_second: f64) -> TimedBudget {
    TimedBudget::new(Budget::new(max, max, per_second))
}

impl InfrastructureRate {
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

    #[tokio::test(start_paused = true)]
    async fn each_client_has_a_rate_of_health_calls() {
        let rate = InfrastructureRate::default();
        assert_eq!(admitted(&rate, CHECK, HERE), 1000);
        assert_eq!(admitted(&rate, REFLECTION, HERE), 200);
        assert_eq!(admitted(&rate, CHECK, [192, 0, 2, 1].into()), 1000);
        advance(Duration::from_secs(1)).await;
        assert_eq!(admitted(&rate, CHECK, HERE), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn the_requests_of_reflection_streams_wait_for_their_rate() {
        let rate = Arc::new(InfrastructureRate::default());
        let begun = Instant::now();
        let streams = [(); 4].map(|()| ReflectionRate::new(Arc::clone(&rate), HERE));
        for _ in 0..100 {
            let requests = streams.each_ref().map(ReflectionRate::request);
            futures_util::future::join_all(requests).await;
        }
        // 200 are free, and each second pays for 50.
        let seconds = begun.elapsed().as_secs_f64();
        assert!((3.9..4.1).contains(&seconds), "{seconds}");
        assert_eq!(admitted(&rate, CHECK, HERE), 1000);
    }
}
