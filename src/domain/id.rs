//! Ids. Each kind has its own type, so that the compiler rejects a mix-up.

use std::fmt;

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    serialize::{self, Output, ToSql},
    sql_types,
};
use uuid::Uuid;

/// Declares a kind of id: a UUID in the database, lower-case hyphenated text in the API.
macro_rules! id_type {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            AsExpression, FromSqlRow,
        )]
        #[diesel(sql_type = sql_types::Uuid)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Generates the id of a row that the server names.
            #[must_use]
            pub fn generate() -> Self {
                generate()
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl ToSql<sql_types::Uuid, Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                ToSql::<sql_types::Uuid, Pg>::to_sql(&self.0, out)
            }
        }

        impl FromSql<sql_types::Uuid, Pg> for $name {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                Uuid::from_sql(value).map(Self)
            }
        }
    )+};
}

/// Generates an id of any kind. It is a UUIDv7, so that rows of the same time are neighbours
/// in their indexes.
#[must_use]
pub fn generate<T: From<Uuid>>() -> T {
    Uuid::now_v7().into()
}

id_type! {
    /// Identifies a workflow (`workflow_executions.id`).
    WorkflowId;
    /// The caller's id of a workflow (`workflow_executions.correlation_id`).
    CorrelationId;
    /// Identifies a step (`workflow_steps.id`).
    StepId;
    /// Identifies a stamp (`metadata_stamps.id`).
    StampId;
    /// Identifies a row of the journal (`fsm_transitions.id`).
    TransitionId;
    /// Identifies a call that puts or deletes a machine (`fsm_machines.change_id`).
    MachineChangeId;
    /// The caller's id of an entity (`fsm_entities.entity_id`).
    EntityId;
    /// Identifies a bridge (`bridge_states.bridge_id`).
    BridgeId;
    /// Identifies a batch within a bridge (`bridge_batches.batch_id`).
    BatchId;
    /// Identifies a token (`api_tokens.id`).
    TokenId;
}
