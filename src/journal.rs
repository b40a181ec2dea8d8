//! The journal (fsm_transitions): one row for every state change of anything,
//! written in the same transaction as the change itself.

use chrono::{DateTime, Utc};
use diesel::{dsl::SqlTypeOf, pg::Pg, prelude::*};

use crate::{
    db::schema::fsm_transitions,
    digest::RequestDigest,
    id::{TokenId, TransitionId},
    json::JsonObject,
    proto::v1,
    time,
};

/// The event of an entity's first move, where nobody named another.
pub const START_EVENT: &str = "start";
/// The event and the state of an entity's last move, when it is deleted.
pub const DELETE_EVENT: &str = "delete";
/// See [`DELETE_EVENT`].
pub const DELETED: &str = "DELETED";

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

/// The types of [`Transition`]'s columns.
pub type TransitionSql = SqlTypeOf<<Transition as Selectable<Pg>>::SelectExpression>;

impl From<Transition> for v1::FsmTransition {
    fn from(row: Transition) -> Self {
        v1::FsmTransition {
            id: row.id.to_string(),
            namespace: row.namespace,
            entity_id: row.entity_id.to_string(),
            entity_type: row.entity_type,
            from_state: row.from_state,
            to_state: row.to_state,
            transition_event: row.transition_event,
            transition_data: Some(row.transition_data.into()),
            created_at: Some(time::to_proto(row.created_at)),
            token_id: row.token_id.map(|id| id.to_string()),
        }
    }
}
