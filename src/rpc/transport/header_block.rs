//! Bounds the headers that have not arrived completely.
//!
//! h2 keeps the headers of a block until its last frame has arrived: up to the limit of headers, and
//! a few bytes of a client become as much. It has no limit of time, and none for all connections
//! together. So a block has a deadline, and its client needs a share of the bytes that all
//! incomplete blocks may take. Headers of a usual size are a single frame, which needs none.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::{eviction::ConnectionSlot, frames::HeaderBlock};
use crate::util::shares::Share;

/// The headers of a connection that have not arrived completely.
pub(super) struct PendingHeaders {
    max_bytes: usize,
    timeout: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
    share: Option<Share>,
}

/// A client has too many connections with incomplete headers.
pub(super) struct TooManyBytes;

impl PendingHeaders {
    /// Expects blocks of headers within `timeout`, which take `max_bytes` each.
    pub(super) fn new(max_bytes: usize, timeout: Duration) -> Self {
        PendingHeaders {
            max_bytes,
            timeout,
            deadline: None,
            share: None,
        }
    }

    /// Notes the block that is not complete.
    ///
    /// # Errors
    /// If the client has no share for it.
    pub(super) fn expect(
        &mut self,
        block: HeaderBlock,
        slot: &ConnectionSlot,
    ) -> Result<(), TooManyBytes> {
        if block == HeaderBlock::None {
            self.deadline = None;
            self.share = None;
            return Ok(());
        }
        let timeout = self.timeout;
        self.deadline
            .get_or_insert_with(|| Box::pin(sleep(timeout)));
        if block == HeaderBlock::Frames && self.share.is_none() {
            let share = slot.share_headers(self.max_bytes);
            self.share = Some(share.ok_or(TooManyBytes)?);
        }
        Ok(())
    }

    /// Starts the time again, because the connection was not read.
    pub(super) fn restart(&mut self) {
        if let Some(deadline) = &mut self.deadline {
            deadline.as_mut().reset(Instant::now() + self.timeout);
        }
    }

    /// Waits until the deadline of a block has passed.
    pub(super) fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}
