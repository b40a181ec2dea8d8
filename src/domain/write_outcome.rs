//! What a call that stores a row answers, be it the first or a retry.

use crate::domain::error::{Error, Result};

/// A row, and who stored it.
#[derive(Debug)]
pub struct WriteOutcome<T> {
    /// The row as it is stored.
    pub row: T,
    /// Whether this call stored it, or an earlier one had.
    pub created: bool,
}

/// What an append answers whose id is taken: the row that is there, if the same
/// request stored it. Under an id that we made for this very call it was this very
/// call, in a try whose answer was lost.
///
/// # Errors
/// The conflict, if another request stored it, whoever's it was.
pub fn resolve_duplicate<T>(
    same: Option<T>,
    is_id_chosen: bool,
    conflict: impl FnOnce() -> Error,
) -> Result<WriteOutcome<T>> {
    match same {
        Some(row) => Ok(WriteOutcome {
            row,
            created: !is_id_chosen,
        }),
        None => Err(conflict()),
    }
}
