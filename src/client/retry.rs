//! Retries of calls, and the reason of a failure.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::util::backoff::jittered;

/// The first and the longest pause between two attempts. Each pause is twice the previous one, so that
/// a server is found again soon after an outage.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Returns the reason of a failure, such as `NODE_NOT_FOUND`, or `None` if the failure does not come
/// from bridgebook but from the network.
#[must_use]
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == crate::domain::error::DOMAIN).then_some(info.reason)
}

/// Returns the minimum pause before a retry, or `None` if a retry cannot succeed.
///
/// The contract says for each write whether a retry is safe. Most writes are idempotent if the caller
/// chose the ids.
#[must_use]
pub fn retry_after(status: &Status) -> Option<Duration> {
    if let Some(delay) = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay)
    {
        return Some(delay);
    }
    // A statement that took too long wrote nothing, and would take as long again.
    if reason(status).as_deref() == Some("STATEMENT_TIMEOUT") {
        return None;
    }
    // After a deadline the outcome of a write is unknown. A status with a source was made by tonic
    // because the connection broke.
    let is_transient = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
        || status.source().is_some();
    is_transient.then_some(Duration::ZERO)
}

/// The state of the retries of one call.
#[derive(Debug)]
pub struct Retries {
    timeout: Duration,
    failing_since: Option<Instant>,
    pause: Duration,
}

impl Retries {
    /// Limits the time from the first failure to the last attempt; `Duration::MAX` for no limit.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Retries {
            timeout,
            failing_since: None,
            pause: FIRST_PAUSE,
        }
    }

    /// Returns the pause before the next attempt, or `None` to give up. The pause is at least as long
    /// as the server demands, plus jitter, so that clients that failed together do not retry
    /// together.
    pub fn pause_after(&mut self, status: &Status) -> Option<Duration> {
        let least = retry_after(status)?;
        let failing_for = self
            .failing_since
            .get_or_insert_with(Instant::now)
            .elapsed();
        let pause = least.saturating_add(jittered(self.pause));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        (failing_for.saturating_add(pause) < self.timeout).then_some(pause)
    }
}

/// Retries a call until it succeeds, fails permanently, or times out.
///
/// ```ignore
/// with_retries(Duration::from_secs(60), async || {
///     client.registry().get_node(request.clone()).await
/// })
/// .await?
/// ```
///
/// # Errors
/// The status of the last attempt.
pub async fn with_retries<T>(
    timeout: Duration,
    mut call: impl AsyncFnMut() -> Result<Response<T>, Status>,
) -> Result<T, Status> {
    let mut retries = Retries::new(timeout);
    loop {
        let status = match call().await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => status,
        };
        match retries.pause_after(&status) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::error;

    const LONG: Duration = Duration::from_secs(60);

    fn status(error: error::Error) -> Status {
        error.into()
    }

    fn not_found() -> Status {
        status(error::Error::NotFound {
            resource: error::Resource::Node,
            field: "node_id",
            name: "n".into(),
            namespace: None,
        })
    }

    #[test]
    fn only_a_status_of_bridgebook_has_a_reason() {
        assert_eq!(reason(&not_found()).as_deref(), Some("NODE_NOT_FOUND"));
        assert_eq!(reason(&Status::from_error("the line broke".into())), None);
    }

    #[test]
    fn only_temporary_failures_are_retried_after_the_pause_that_the_server_demands() {
        // The service adds up to a quarter.
        let delays = Duration::from_millis(50)..=Duration::from_millis(63);
        let delay = retry_after(&status(error::Error::QueueFull)).unwrap();
        assert!(delays.contains(&delay), "{delay:?}");
        let zero = Some(Duration::ZERO);
        assert_eq!(retry_after(&status(error::Error::DeadlineExceeded)), zero);
        assert_eq!(retry_after(&Status::from_error("it broke".into())), zero);
        assert_eq!(retry_after(&status(error::Error::MessageTooLarge(7))), None);
        assert_eq!(retry_after(&not_found()), None);
        let slow = error::Error::StatementTimeout(Arc::new(std::io::Error::other("too slow")));
        assert_eq!(retry_after(&status(slow)), None);
    }

    #[test]
    fn pauses_grow_to_a_maximum_and_retries_time_out() {
        let full = status(error::Error::QueueFull);
        let mut retries = Retries::new(Duration::MAX);
        let pauses: Vec<_> = (0..20)
            .map(|_| retries.pause_after(&full).unwrap())
            .collect();
        // The service adds up to a quarter, so that clients do not return together.
        let (least, most) = (Duration::from_millis(50), Duration::from_millis(63));
        assert!(pauses[0] >= least + FIRST_PAUSE / 2 && pauses[0] <= most + FIRST_PAUSE);
        assert!(pauses[19] >= least + LONGEST_PAUSE / 2 && pauses[19] <= most + LONGEST_PAUSE);
        assert_eq!(Retries::new(least).pause_after(&full), None);
    }

    #[tokio::test]
    async fn a_call_is_retried_until_it_succeeds() {
        let mut calls = 0;
        let call = async || {
            calls += 1;
            match calls {
                1 | 2 => Err(status(error::Error::QueueFull)),
                _ => Ok(Response::new(calls)),
            }
        };
        assert_eq!(with_retries(LONG, call).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_permanent_failure_is_not_retried() {
        let mut calls = 0;
        let call = async || {
            calls += 1;
            Err::<Response<()>, _>(not_found())
        };
        let status = with_retries(LONG, call).await.unwrap_err();
        assert_eq!((status.code(), calls), (Code::NotFound, 1));
    }

    #[tokio::test]
    async fn retries_can_run_in_a_spawned_task() {
        let answer = with_retries(LONG, async || Ok(Response::new(7)));
        assert_eq!(tokio::spawn(answer).await.unwrap().unwrap(), 7);
    }
}
