//! Bounds the headers that have not arrived completely.
//!
//! h2 keeps the headers of a block until its last frame has arrived: up to the limit of headers, and
//! a few bytes of a client become as much. It has no limit of time, and none for all connections
//! together. So each block has a deadline, and its client needs a share of the bytes that all
//! incomplete blocks may take. Headers of a usual size are a single frame, which needs none.
//!
//! The deadline is one of the client: time in which the connection is not read does not count.

use std::{
    net::IpAddr,
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
    /// The number of the block.
    number: u64,
    /// The time that the client has for the rest of the block, while no deadline runs.
    left: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
    share: Option<Share<IpAddr>>,
    is_incomplete: bool,
}

/// A client has too many connections with incomplete headers.
pub(super) struct TooManyBytes;

impl PendingHeaders {
    /// Expects blocks of headers within `timeout`, which take `max_bytes` each.
    pub(super) fn new(max_bytes: usize, timeout: Duration) -> Self {
        PendingHeaders {
            max_bytes,
            timeout,
            number: 0,
            left: timeout,
            deadline: None,
            share: None,
            is_incomplete: false,
        }
    }

    /// Notes the newest block and its number.
    ///
    /// # Errors
    /// If the client has no share for it.
    pub(super) fn expect(
        &mut self,
        block: HeaderBlock,
        number: u64,
        slot: &ConnectionSlot,
    ) -> Result<(), TooManyBytes> {
        self.is_incomplete = block != HeaderBlock::None;
        if number != self.number || !self.is_incomplete {
            self.number = number;
            self.left = self.timeout;
            self.deadline = None;
            self.share = None;
        }
        if block == HeaderBlock::Frames && self.share.is_none() {
            let share = slot.share_headers(self.max_bytes);
            self.share = Some(share.ok_or(TooManyBytes)?);
        }
        Ok(())
    }

    /// Stops the time until the client is waited for again.
    pub(super) fn pause(&mut self) {
        if let Some(deadline) = self.deadline.take() {
            self.left = deadline
                .deadline()
                .saturating_duration_since(Instant::now());
        }
    }

    /// Waits for the client until the deadline of the block has passed.
    pub(super) fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_incomplete {
            return Poll::Pending;
        }
        let left = self.left;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(left)));
        deadline.as_mut().poll(context)
    }
}
