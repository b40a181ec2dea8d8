//! The journal (fsm_transitions): one row for every state change of anything,
//! written in the same transaction as the change itself.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{dsl::SqlTypeOf, pg::Pg, prelude::*};

use crate::{
    db::schema::fsm_transitions,
    domain::{
        digest::RequestDigest,
        id::{TokenId, TransitionId},
        json::JsonObject,
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
}

/// The columns of [`Transition`], in its order, of the table alias `t`.
macro_rules! transition_columns {
    () => {
        "t.id, t.entity_id, t.entity_type, t.from_state, t.to_state, t.transition_event, \
         t.transition_data, t.created_at, t.namespace, t.request_digest, t.token_id"
    };
}

pub(crate) use transition_columns;

/// Joins the rows of the journal that already have the items' ids: `taken` is
/// whatever has the id, and `t` is the same row if the same request of the same
/// tenant wrote it. One snapshot shows a move and its row, or neither.
///
/// The journal is looked into beyond the namespace, because its key reaches beyond
/// it. Only the id of `taken` may be selected: of what another tenant, or another
/// request, wrote nothing is read, so that one's own makes no more work than
/// another tenant's.
macro_rules! known_transitions {
    () => {
        "LEFT JOIN LATERAL (
             SELECT * FROM fsm_transitions t WHERE t.id = item.id LIMIT 1) taken ON true
         LEFT JOIN LATERAL (
             SELECT taken.*
              WHERE taken.namespace = item.namespace
                AND taken.request_digest = item.request_digest) t ON true"
    };
}

pub(crate) use known_transitions;

/// The ids that the journal has, as far as a batch goes, with the rows that the
/// batch may know: those that its own requests wrote. `None` stands for a row of
/// which it is only known that it is there.
#[derive(Debug, Default)]
pub struct KnownTransitions(HashMap<TransitionId, Option<Transition>>);

impl KnownTransitions {
    /// Adds what [`known_transitions!`] found for an item.
    pub fn found(&mut self, taken: Option<TransitionId>, same: Option<Transition>) {
        let Some(id) = taken else { return };
        // Another item with this id may have been the one that wrote the row.
        let known = self.0.entry(id).or_default();
        *known = same.or(known.take());
    }

    /// Adds a row that the batch is going to write.
    pub fn add(&mut self, row: Transition) {
        self.0.insert(row.id, Some(row));
    }

    /// What is known under an id: nothing if it is free.
    #[must_use]
    pub fn get(&self, id: TransitionId) -> Option<Option<&Transition>> {
        self.0.get(&id).map(Option::as_ref)
    }
}

/// The types of [`Transition`]'s columns.
pub type TransitionSql = SqlTypeOf<<Transition as Selectable<Pg>>::SelectExpression>;
