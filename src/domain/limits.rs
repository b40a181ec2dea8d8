//! Limits of the content of a request.

use super::json;

/// The limits of the content of a request. [`ContentLimits::default`] has the limits of
/// the contract, which are the maximums; an operator can configure lower ones.
#[derive(Debug, Clone, Copy)]
pub struct ContentLimits {
    /// Maximum size of a message, in bytes.
    pub message_bytes: usize,
    /// Maximum size of a JSON document, in bytes of JSON text.
    pub json_bytes: usize,
    /// Maximum depth of a JSON document, in levels.
    pub json_depth: usize,
    /// Maximum number of items of a batch.
    pub batch_items: usize,
    /// Maximum number of rows of a page.
    pub page_rows: i32,
}

/// Maximum number of items of a batch. A batch of items of 4 KiB each fits into the 4 MiB
/// of a gRPC message, and is written by one statement.
pub const MAX_BATCH: usize = 1000;

/// Maximum size of a response, in bytes. gRPC clients accept 4 MiB by default; the margin is
/// for what they count beside the message.
pub const MAX_RESPONSE: usize = MAX_MESSAGE - 64 * 1024;

/// Maximum size of the items of a batch together, in bytes. The response repeats them
/// and adds a few hundred bytes for each, so it rarely exceeds [`MAX_RESPONSE`].
pub const MAX_BATCH_BYTES: usize = 3 * 1024 * 1024;

/// Maximum number of rows of a response. Most rows are small.
pub const MAX_ROWS: i32 = 1000;

/// Maximum size of a message, in bytes: what gRPC clients accept by default.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Maximum size of a document that filters rows, in bytes as protobuf.
pub const MAX_FILTER_BYTES: usize = 4096;

/// Maximum number of values in the arrays of a document that filters rows. PostgreSQL compares each
/// with each value of an array in a row, and nothing can cancel it while it does.
pub const MAX_FILTER_ARRAY_VALUES: usize = 16;

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
