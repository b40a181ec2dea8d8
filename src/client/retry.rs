//! What a failed call says, and calling again.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::util::backoff::jittered;

/// The first pause; every next one is twice as long, up to the longest. A server
/// that was away is found again soon after it is back.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The reason that bridgebook gives for a failure, such as `NODE_NOT_FOUND`.
/// `None` if the failure did not come from bridgebook but from the way there.
#[must_use]
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == crate::domain::error::DOMAIN).then_some(info.reason)
}

/// How long to wait at least before the same call again; `None` if that is no use.
///
/// Repeating a write is safe where the contract says so, which for most of them
/// is where the caller chose the ids.
#[must_use]
pub fn retry_after(status: &Status) -> Option<Duration> {
    if let Some(delay) = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay)
    {
        return Some(delay);
    }
    // A deadline leaves open whether a write was made. What has a source was made
    // up on this side of the line, because the line broke.
    let is_transient = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
        || status.source().is_some();
    is_transient.then_some(Duration::ZERO)
}

/// Counts the retries of one call.
#[derive(Debug)]
pub struct Retries {
    patience: Duration,
    failing_since: Option<Instant>,
    pause: Duration,
}

impl Retries {
    /// Gives up after this long; `Duration::MAX` for never.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Retries {
            patience,
            failing_since: None,
            pause: FIRST_PAUSE,
        }
    }

    /// After a failure: how long to wait before the next try, or `None` to give
    /// up. It is at least as long as the server said, and partly random, so that
    /// those who failed together do not come back together.
    pub fn pause_after(&mut self, status: &Status) -> Option<Duration> {
        let least = retry_after(status)?;
        let failing_for = self
            .failing_since
            .get_or_insert_with(Instant::now)
            .elapsed();
        let pause = least.saturating_add(jittered(self.pause));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        (failing_for.saturating_add(pause) < self.patience).then_some(pause)
    }
}

/// Makes a call until it is answered, or fails for good, or this long has passed.
///
/// ```ignore
/// with_retries(Duration::from_secs(60), async || {
///     client.registry().get_node(request.clone()).await
/// })
/// .await?
/// ```
///
/// # Errors
/// The last failure.
pub async fn with_retries<T>(
    patience: Duration,
    mut call: impl AsyncFnMut() -> Result<Response<T>, Status>,
) -> Result<T, Status> {
    let mut retries = Retries::new(patience);
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
        })
    }

    #[test]
    fn a_reason_is_read_from_what_bridgebook_answers_and_only_from_that() {
        assert_eq!(reason(&not_found()).as_deref(), Some("NODE_NOT_FOUND"));
        assert_eq!(reason(&Status::from_error("the line broke".into())), None);
    }

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_before_the_server_said() {
        let delay = Duration::from_millis(50);
        assert_eq!(retry_after(&status(error::Error::QueueFull)), Some(delay));
        let zero = Some(Duration::ZERO);
        assert_eq!(retry_after(&status(error::Error::DeadlineExceeded)), zero);
        assert_eq!(retry_after(&Status::from_error("it broke".into())), zero);
        assert_eq!(retry_after(&status(error::Error::MessageTooLarge(7))), None);
        assert_eq!(retry_after(&not_found()), None);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_patience_ends() {
        let full = status(error::Error::QueueFull);
        let mut retries = Retries::new(Duration::MAX);
        let pauses: Vec<_> = (0..20)
            .map(|_| retries.pause_after(&full).unwrap())
            .collect();
        let least = Duration::from_millis(50);
        assert!(pauses[0] >= least + FIRST_PAUSE / 2 && pauses[0] <= least + FIRST_PAUSE);
        assert!(pauses[19] >= least + LONGEST_PAUSE / 2 && pauses[19] <= least + LONGEST_PAUSE);
        assert_eq!(Retries::new(least).pause_after(&full), None);
    }

    #[tokio::test]
    async fn a_call_is_made_until_it_is_answered() {
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
    async fn a_call_that_fails_for_good_is_made_once() {
        let mut calls = 0;
        let call = async || {
            calls += 1;
            Err::<Response<()>, _>(not_found())
        };
        let refused = with_retries(LONG, call).await.unwrap_err();
        assert_eq!((refused.code(), calls), (Code::NotFound, 1));
    }

    #[tokio::test]
    async fn a_call_can_be_made_patiently_in_a_task_of_its_own() {
        let answer = with_retries(LONG, async || Ok(Response::new(7)));
        assert_eq!(tokio::spawn(answer).await.unwrap().unwrap(), 7);
    }
}
