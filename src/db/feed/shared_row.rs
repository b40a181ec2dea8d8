//! A row of the journal that many readers share.

use std::{ops::Deref, sync::OnceLock};

use prost::bytes::Bytes;

use crate::db::journal::Transition;

/// A row of the journal, and its message, which is encoded once for all readers.
#[derive(Debug)]
pub struct SharedRow {
    row: Transition,
    encoded: OnceLock<Bytes>,
}

impl SharedRow {
    pub(super) fn new(row: Transition) -> Self {
        SharedRow {
            row,
            encoded: OnceLock::new(),
        }
    }

    /// Returns the message of the row, which `encode` makes unless a reader has made it before.
    pub fn encoded(&self, encode: impl FnOnce(&Transition) -> Bytes) -> Bytes {
        self.encoded.get_or_init(|| encode(&self.row)).clone()
    }
}

impl Deref for SharedRow {
    type Target = Transition;

    fn deref(&self) -> &Transition {
        &self.row
    }
}
