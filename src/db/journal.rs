//! The journal (fsm_transitions): one row for each state change, written in the same
//! transaction as the change.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    dsl::SqlTypeOf,
    expression::AsExpression,
    pg::{Pg, PgValue},
    prelude::*,
    sql_types::{BigInt, Uuid},
};

use crate::{
    db::{
        DbError,
        schema::{fsm_transitions, sql_types::Xid8},
    },
    domain::{
        digest::RequestDigest,
        error::{Error, Resource, Result},
        id::{TokenId, TransitionId},
        json::JsonObject,
        namespace::Scoped,
        position::Position,
    },
};

/// A row of the journal.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = fsm_transitions)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct Transition {
    pub id: TransitionId,
    pub entity_id: uuid::Uuid,
    pub entity_type: String,
    pub from_state: Option<String>,
    pub to_state: String,
    pub transition_event: String,
    pub transition_data: JsonObject,
    pub created_at: DateTime<Utc>,
    pub namespace: String,
    pub request_digest: Option<RequestDigest>,
    pub token_id: Option<TokenId>,
    pub xid: Xid,
    pub seq: i64,
}

impl Transition {
    /// Makes a row of an order.
    #[cfg(test)]
    pub fn for_test(to_state: &str) -> Self {
        Transition {
            id: TransitionId(uuid::Uuid::from_u128(1)),
            entity_id: uuid::Uuid::from_u128(2),
            entity_type: "order".to_owned(),
            from_state: None,
            to_state: to_state.to_owned(),
            transition_event: "move".to_owned(),
            transition_data: JsonObject::default(),
            created_at: DateTime::default(),
            namespace: "demo".to_owned(),
            request_digest: None,
            token_id: None,
            xid: Xid(1),
            seq: 1,
        }
    }

    /// Returns the position of the row in the journal.
    #[must_use]
    pub fn journal_position(&self) -> Position {
        Position {
            xid: self.xid.0,
            seq: self.seq,
            transition_id: self.id,
        }
    }

    /// Sets the position of a row that the batch wrote. A row of an earlier call has its own.
    pub fn complete(&mut self, positions: &Positions) {
        if let Some(position) = positions.get(&self.id) {
            self.xid = Xid(position.xid);
            self.seq = position.seq;
        }
    }
}

/// The positions of the rows that a statement wrote.
pub type Positions = HashMap<TransitionId, Position>;

/// The SQL types of what a statement returns of each row that it writes: `id, xid, seq`.
pub type PositionSql = (Uuid, Xid8, BigInt);

impl Queryable<PositionSql, Pg> for Position {
    type Row = (TransitionId, Xid, i64);

    fn build((transition_id, xid, seq): Self::Row) -> deserialize::Result<Self> {
        Ok(Position {
            xid: xid.0,
            seq,
            transition_id,
        })
    }
}

/// Returns positions by the ids of their rows.
pub fn by_id(positions: impl IntoIterator<Item = Position>) -> Positions {
    let positions = positions.into_iter();
    positions.map(|it| (it.transition_id, it)).collect()
}

/// The number of the transaction that wrote a row. 0 in a row that is not written yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Xid8)]
pub struct Xid(pub u64);

impl FromSql<Xid8, Pg> for Xid {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let bytes = value.as_bytes().try_into()?;
        Ok(Xid(u64::from_be_bytes(bytes)))
    }
}

/// The columns of [`Transition`] in order, of the table alias `t`.
macro_rules! transition_columns {
    () => {
        "t.id, t.entity_id, t.entity_type, t.from_state, t.to_state, t.transition_event, \
         t.transition_data, t.created_at, t.namespace, t.request_digest, t.token_id, t.xid, t.seq"
    };
}

/// Joins each item with the last row of the journal of its `entity_type` and `entity_id`, as
/// `$alias`, or with NULLs. `$condition` tells for which items.
macro_rules! left_last_transition {
    ($alias:literal, $condition:literal) => {
        $crate::db::planner::left_neighbour!(
            $alias,
            "fsm_transitions",
            concat!($condition, " AND it.namespace = item.namespace"),
            "(it.entity_type, it.entity_id) <= (item.entity_type, item.entity_id)",
            "it.entity_type DESC, it.entity_id DESC, it.created_at DESC, it.seq DESC",
            "(it.entity_type, it.entity_id) = (item.entity_type, item.entity_id)"
        )
    };
}

pub(crate) use {left_last_transition, transition_columns};

/// The transitions of a batch's ids that are already in the journal. `None` stands for a row
/// that another request wrote, which the batch may not read.
#[derive(Debug, Default)]
pub struct KnownTransitions(HashMap<TransitionId, Option<Transition>>);

impl KnownTransitions {
    /// Adds the rows that `insert_once::taken!` found for an item.
    pub fn found(&mut self, taken: Option<TransitionId>, same: Option<Transition>) {
        let Some(id) = taken else { return };
        // Another item with this id may be the one whose request wrote the row.
        let known = self.0.entry(id).or_default();
        *known = same.or(known.take());
    }

    /// Adds a row that the batch will write.
    pub fn add(&mut self, row: Transition) {
        self.0.insert(row.id, Some(row));
    }

    /// Returns the transition with the id of a request if the same request wrote it; `None` if
    /// the id is free.
    ///
    /// # Errors
    /// [`Error::IdConflict`] if another request wrote it.
    pub fn duplicate<T>(
        &self,
        id: TransitionId,
        digest: RequestDigest,
        request: &Scoped<T>,
    ) -> Result<Option<&Transition>> {
        let Some(known) = self.0.get(&id) else {
            return Ok(None);
        };
        let is_same = |row: &&Transition| {
            row.request_digest == Some(digest) && row.namespace == request.namespace.as_str()
        };
        let same = known.as_ref().filter(is_same);
        same.map(Some).ok_or_else(|| id_conflict(id))
    }
}

/// Returns the error for a transition whose statement failed. A violated key means that another
/// request used the transition_id since it was read.
pub fn write_error(id: TransitionId, error: DbError) -> Error {
    match error.constraint() {
        Some("fsm_transitions_pkey") => id_conflict(id),
        _ => error.into(),
    }
}

/// Returns the error for a transition_id that another request used.
pub fn id_conflict(id: TransitionId) -> Error {
    Error::IdConflict {
        resource: Resource::Transition,
        field: "transition_id",
        name: id.to_string(),
    }
}

/// The SQL types of the columns of [`Transition`].
pub type TransitionSql = SqlTypeOf<<Transition as Selectable<Pg>>::SelectExpression>;
