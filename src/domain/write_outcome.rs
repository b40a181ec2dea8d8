//! The outcome of a call that stores a row, be it the first call or a retry.

use crate::domain::error::{Error, Result};

/// A stored row, and whether this call stored it.
#[derive(Debug)]
pub struct WriteOutcome<T> {
    /// The row as it is stored.
    pub row: T,
    /// Whether this call stored the row. False if an earlier call did.
    pub created: bool,
}

/// Resolves a write whose id is taken. `same` is the row with the id if the same request
/// stored it. If the service made the id for this very call, an earlier try of the call
/// stored the row and lost its connection before the answer.
///
/// # Errors
/// The conflict, if another request stored the row, of this or any other tenant.
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
