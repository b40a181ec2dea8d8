//! The outcome of a call that stores a row, be it the first call or a retry.

use super::{
    error::{Error, Result},
    position::Position,
};

/// A stored row, and whether this call stored it.
#[derive(Debug)]
pub struct WriteOutcome<T> {
    /// The row as it is stored.
    pub row: T,
    /// Whether this call stored the row. False if an earlier call did.
    pub created: bool,
}

/// A stored row, and where the journal tells of it.
#[derive(Debug, Clone)]
pub struct Journaled<T> {
    /// The row as it is stored.
    pub row: T,
    /// The position of the row of the journal; unset if there is none, or none any more.
    pub position: Option<Position>,
}

/// The outcome of a call that deletes a row.
#[derive(Debug)]
pub struct Deleted {
    /// Whether this call deleted the row.
    pub is_deleted: bool,
    /// The namespace of the row of the journal.
    pub journal: String,
    /// The position of the row of the journal that records the deletion, by this call or an earlier
    /// one; unset if there is none.
    pub position: Option<Position>,
}

impl Deleted {
    /// Returns the text of the position for the API; empty if there is none.
    #[must_use]
    pub fn position_text(&self) -> String {
        Position::text_of(self.position, &self.journal)
    }
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
