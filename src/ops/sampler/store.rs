//! SQL about figures that only the database knows.

use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    db::{DbError, Query, batch::statement::statement},
    domain::error::Result,
};

/// Asks for figures that only the database knows.
pub(super) struct Figures;

/// A figure.
#[derive(Debug, diesel::Queryable)]
pub(super) struct Figure {
    /// A `health_status`, [`STALE`] or [`JOURNAL`].
    pub(super) name: String,
    pub(super) value: i64,
}

/// The names of the journal's position, and of the number of nodes that have been silent
/// for longer than their TTL; nodes' health is in capitals.
pub(super) const JOURNAL: &str = "journal";
pub(super) const STALE: &str = "stale";

impl Query for Figures {
    type Answer = Vec<Figure>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        Ok(Ok(SelectFigures {}.load(connection).await?))
    }
}

statement! {
    /// The figures.
    struct SelectFigures {}
    returns (Text, BigInt);
    "SELECT health_status, count(*)
       FROM node_registrations GROUP BY health_status
      UNION ALL
     SELECT 'stale', count(*)
       FROM node_registrations
      WHERE last_heartbeat <= now() - heartbeat_ttl_ms * interval '1 millisecond'
      UNION ALL
     SELECT 'journal', last_value FROM fsm_transitions_seq_seq"
}
