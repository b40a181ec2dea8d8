//! The SQL of metrics that only the database knows.

use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    db::{DbError, Query, batch::statement::statement},
    domain::error::Result,
};

/// Reads the samples.
pub(super) struct Samples;

/// The value of one metric.
#[derive(Debug, diesel::Queryable)]
pub(super) struct Sample {
    /// A `health_status`, [`STALE`] or [`JOURNAL`].
    pub(super) name: String,
    pub(super) value: i64,
}

/// The names of two samples: the position of the journal, and the number of nodes without a
/// heartbeat within their TTL. They differ from those of health, which are in capitals.
pub(super) const JOURNAL: &str = "journal";
pub(super) const STALE: &str = "stale";

impl Query for Samples {
    type Answer = Vec<Sample>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        Ok(Ok(SelectSamples {}.load(connection).await?))
    }
}

statement! {
    /// Selects the samples.
    struct SelectSamples {}
    returns (Text, BigInt), is_batch: false;
    "SELECT health_status, count(*)
       FROM node_registrations GROUP BY health_status
      UNION ALL
     SELECT 'stale', count(*)
       FROM node_registrations
      WHERE last_heartbeat <= now() - heartbeat_ttl_ms * interval '1 millisecond'
      UNION ALL
     SELECT 'journal', last_value FROM fsm_transitions_seq_seq"
}
