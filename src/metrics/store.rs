//! SQL about figures that only the database knows.

use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    db::{DbError, Query},
    error::Result,
};

/// Asks for figures that only the database knows.
pub(super) struct Figures;

/// A figure.
#[derive(Debug, diesel::QueryableByName)]
pub(super) struct Figure {
    /// A `health_status`, or [`JOURNAL`].
    #[diesel(sql_type = Text)]
    pub(super) name: String,
    #[diesel(sql_type = BigInt)]
    pub(super) value: i64,
}

/// The name of the journal's position; nodes' health is in capitals.
pub(super) const JOURNAL: &str = "journal";

impl Query for Figures {
    type Answer = Vec<Figure>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let figures = diesel::sql_query(
            "SELECT health_status AS name, count(*) AS value
               FROM node_registrations GROUP BY health_status
              UNION ALL
             SELECT 'journal', last_value FROM fsm_transitions_seq_seq",
        );
        Ok(Ok(figures.load(connection).await?))
    }
}
