//! The SQL of metrics that only the database knows.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Double, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    db::{
        DbError, Query,
        batch::statement::statement,
        planner::{byte_order, lateral, left_lateral, raw_statement},
    },
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

/// Reads how far bridges are behind the journal, in seconds, by namespace.
pub(super) struct ConsumerLags;

#[derive(QueryableByName)]
struct Lag {
    #[diesel(sql_type = Text)]
    namespace: String,
    #[diesel(sql_type = Double)]
    seconds: f64,
}

impl Query for ConsumerLags {
    type Answer = Vec<(String, f64)>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let lags: Vec<Lag> = diesel::sql_query(CONSUMER_LAGS).load(connection).await?;
        let lags = lags.into_iter().map(|lag| (lag.namespace, lag.seconds));
        Ok(Ok(lags.collect()))
    }
}

raw_statement! {
/// Selects the age of the oldest row of the journal that the slowest bridge of each namespace has not
/// consumed. Goes from one namespace to the next by the index of consuming bridges, whose first entry
/// of each namespace is that of the slowest.
const CONSUMER_LAGS() = concat!(
    "WITH RECURSIVE slowest AS (
        (SELECT namespace, consumed_xid, consumed_seq FROM bridge_states
          WHERE consumed_xid IS NOT NULL
          ORDER BY ", byte_order!("namespace"), ", consumed_xid, consumed_seq LIMIT 1)
         UNION ALL
        SELECT next.namespace, next.consumed_xid, next.consumed_seq FROM slowest",
    lateral!("next",
        "SELECT namespace, consumed_xid, consumed_seq FROM bridge_states b
          WHERE b.consumed_xid IS NOT NULL
            AND ", byte_order!("b.namespace"), " > slowest.namespace
          ORDER BY ", byte_order!("namespace"), ", consumed_xid, consumed_seq LIMIT 1"), "
     )
     SELECT slowest.namespace,
            coalesce(greatest(extract(epoch FROM now() - t.created_at), 0), 0)::double precision
                AS seconds
       FROM slowest",
    left_lateral!("t",
        "SELECT t.created_at FROM fsm_transitions t
          WHERE ", byte_order!("t.namespace"), " = slowest.namespace
            AND (t.xid, t.seq) > (slowest.consumed_xid, slowest.consumed_seq)
          ORDER BY ", byte_order!("t.namespace"), ", t.xid, t.seq LIMIT 1"));
}
