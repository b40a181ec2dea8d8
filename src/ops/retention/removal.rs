//! The removal of the expired rows of a group, step by step.
//!
//! A step that fails is repeated with an eighth of the rows, until the row at fault is alone. Later
//! steps pass over it. So one row that cannot be removed does not keep the others of its tenant. Later
//! steps also pass over a row that remains without an error, because a trigger returned NULL.

use super::store::{ExpiredGroup, MAX_ROWS, Pruned};
use crate::{
    db::DbError,
    domain::error::{Error, Result, internal},
};

/// How many rows of a group are passed over before it is left for the next pass. Beyond
/// that number the other rows mostly cannot be removed either.
const MAX_SKIPPED: i64 = 100;

/// The removal of the rows of a group.
pub struct Removal {
    /// The rows.
    pub expired: ExpiredGroup,
    /// The most rows that the next step removes.
    pub rows: i64,
    /// The number of the oldest rows that it passes over.
    pub skipped: i64,
}

/// The outcome of a step.
pub enum Step {
    /// It removed rows. The next step passes over those that it kept.
    Removed(Pruned),
    /// It removed nothing. The next step is smaller.
    Failed,
    /// It removed nothing, because of one row. The next step passes over it.
    Skipped(Error),
}

impl Removal {
    /// Begins with the oldest rows.
    #[must_use]
    pub fn of(expired: ExpiredGroup) -> Self {
        Removal {
            expired,
            rows: MAX_ROWS,
            skipped: 0,
        }
    }

    /// Takes the outcome of a statement.
    ///
    /// # Errors
    /// The error of the statement, if fewer rows would fail, too, or may succeed later.
    pub(super) fn take(&mut self, outcome: Result<Pruned>) -> Result<Step> {
        match outcome {
            Ok(mut pruned) => {
                self.rows = (self.rows * 2).min(MAX_ROWS);
                self.skipped += pruned.kept;
                pruned.may_leave_some &= self.skipped <= MAX_SKIPPED;
                Ok(Step::Removed(pruned))
            }
            Err(error) if !is_of_a_row(&error) || self.skipped >= MAX_SKIPPED => Err(error),
            Err(_) if self.rows > 1 => {
                self.rows = (self.rows / 8).max(1);
                Ok(Step::Failed)
            }
            Err(error) => {
                self.skipped += 1;
                Ok(Step::Skipped(error))
            }
        }
    }
}

/// Returns the error of rows that the database kept without an error of its own.
#[must_use]
pub fn kept_error() -> Error {
    internal(
        "the database did not delete the row, and reported no error; look for a trigger that \
         returns NULL, or for a policy of row-level security",
    )
}

/// Returns whether an error may be that of one row. Locks end by themselves. A statement that takes
/// too long would delay other groups again. The other errors concern all rows.
fn is_of_a_row(error: &Error) -> bool {
    match error {
        Error::Internal(cause) => !matches!(
            cause.downcast_ref(),
            Some(DbError::MissingGrant { .. } | DbError::Panicked)
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::retention::model::Table;

    fn removal() -> Removal {
        Removal::of(ExpiredGroup::deleted(Table::Workflows).unwrap())
    }

    /// Removes `count` rows of which the statement refuses some. Returns the rows that remain.
    fn remove(count: i64, refuses: impl Fn(i64) -> bool) -> (Vec<i64>, Result<()>) {
        let mut rows: Vec<i64> = (0..count).collect();
        let mut removal = removal();
        loop {
            let taken: Vec<i64> = rows
                .iter()
                .copied()
                .skip(removal.skipped as usize)
                .collect();
            let taken: Vec<i64> = taken.into_iter().take(removal.rows as usize).collect();
            let outcome = match taken.iter().any(|row| refuses(*row)) {
                true => Err(internal("it is refused")),
                false => {
                    rows.retain(|row| !taken.contains(row));
                    Ok(Pruned {
                        removed: taken.len() as i64,
                        may_leave_some: taken.len() as i64 == removal.rows,
                        kept: 0,
                    })
                }
            };
            match removal.take(outcome) {
                Ok(Step::Removed(pruned)) if !pruned.may_leave_some => return (rows, Ok(())),
                Ok(_) => {}
                Err(error) => return (rows, Err(error)),
            }
        }
    }

    #[test]
    fn all_rows_but_those_that_are_refused_are_removed() {
        for refused in [vec![0], vec![3], vec![0, 1, 2, 700], (0..100).collect()] {
            let (left, outcome) = remove(1500, |row| refused.contains(&row));
            assert_eq!(left, refused);
            assert!(outcome.is_ok());
        }
    }

    #[test]
    fn a_group_is_left_if_all_of_its_rows_are_refused() {
        let (left, outcome) = remove(1500, |_| true);
        assert_eq!(left.len(), 1500);
        assert!(outcome.is_err());
    }

    #[test]
    fn rows_that_are_kept_without_an_error_are_passed_over_up_to_a_hundred() {
        let mut removal = removal();
        let pruned = |kept| Pruned {
            removed: MAX_ROWS - kept,
            may_leave_some: true,
            kept,
        };
        for (kept, skipped, goes_on) in [(3, 3, true), (97, 100, true), (1, 101, false)] {
            match removal.take(Ok(pruned(kept))) {
                Ok(Step::Removed(pruned)) => assert_eq!(pruned.may_leave_some, goes_on),
                _ => panic!("the step removed rows"),
            }
            assert_eq!(removal.skipped, skipped);
        }
    }

    #[test]
    fn errors_that_are_not_of_a_row_leave_the_group() {
        for error in [Error::QueueFull, Error::Contended] {
            assert!(removal().take(Err(error)).is_err());
        }
    }
}
