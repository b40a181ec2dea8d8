//! Limits of what a request may contain.

use super::json;

/// Limits of what a request may hold. Those of the contract are the highest.
#[derive(Debug, Clone, Copy)]
pub struct ContentLimits {
    /// How many bytes a message may have.
    pub message_bytes: usize,
    /// How many bytes of text a JSON document may have.
    pub json_bytes: usize,
    /// How many levels it may have.
    pub json_depth: usize,
    /// How many items a batch may have.
    pub batch_items: usize,
    /// How many rows a page may have.
    pub page_rows: i32,
}

/// The most items in a batch call: one fits the 4 MiB of a gRPC message with
/// 4 KiB an item, and is one statement.
pub const MAX_BATCH: usize = 1000;

/// Maximum size of the items of a batch together, in bytes. The answer carries them too,
/// with some hundred bytes of ids and times for each, and gRPC clients accept answers of
/// 4 MiB by default.
pub const MAX_BATCH_BYTES: usize = 3 * 1024 * 1024;

/// The most rows of an answer; each is small.
pub const MAX_ROWS: i32 = 1000;

/// The longest message, in bytes: what gRPC clients take and send by default.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

impl Default for ContentLimits {
    fn default() -> Self {
        ContentLimits {
            message_bytes: MAX_MESSAGE,
            json_bytes: json::MAX_BYTES,
            json_depth: json::MAX_DEPTH,
            batch_items: MAX_BATCH,
            page_rows: MAX_ROWS,
        }
    }
}
