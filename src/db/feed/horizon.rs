//! What keeps rows above the horizon: a transaction that stays open, of any client of the cluster.

use std::time::Duration;

use diesel::{
    result::Error as DieselError,
    sql_types::{Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::time::Instant;

use crate::db::batch::statement::statement;

/// How long rows wait before the log names what they wait for. Batches take seconds at most.
const LOGGED_AFTER: Duration = Duration::from_secs(10);
/// Interval at which the log names it again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

statement! {
    /// Finds the oldest transaction that has written, or is prepared. Sessions of other roles are visible
    /// only to a member of pg_read_all_stats.
    struct FindHolder {}
    returns (Text, Nullable<Text>), is_batch: true;
    "SELECT holder, since::text
       FROM (SELECT concat_ws(', ', 'pid ' || pid, 'database ' || datname, 'role ' || usename,
                              'application ' || nullif(application_name, ''), state) AS holder, xact_start AS since, backend_xid AS xid
               FROM pg_stat_activity WHERE backend_xid IS NOT NULL
              UNION ALL
             SELECT 'prepared transaction ' || gid, prepared, transaction FROM pg_prepared_xacts) it
      ORDER BY age(xid) DESC LIMIT 1"
}

/// The horizon, and since when rows have waited for it to move.
#[derive(Default)]
pub(super) struct Horizon {
    xid: u64,
    waiting_since: Option<Instant>,
    logged_at: Option<Instant>,
}

impl Horizon {
    /// Notes the horizon of a read, and whether there may be rows above it. Returns whether it has moved.
    pub(super) fn note(&mut self, xid: u64, has_waiting: bool) -> bool {
        let has_moved = xid != self.xid;
        self.xid = xid;
        if has_moved || !has_waiting {
            if self.logged_at.take().is_some() && has_moved {
                tracing::info!("watches go on: the open transaction has ended");
            }
            self.waiting_since = None;
        }
        if has_waiting {
            self.waiting_since.get_or_insert_with(Instant::now);
        }
        has_moved
    }

    /// Returns the horizon of the last read.
    pub(super) fn xid(&self) -> u64 {
        self.xid
    }

    /// Returns how long rows have waited.
    pub(super) fn age(&self) -> Duration {
        self.waiting_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Logs what rows wait for, once they have waited for long.
    pub(super) async fn log(
        &mut self,
        connection: &mut AsyncPgConnection,
    ) -> Result<(), DieselError> {
        let is_logged = self.logged_at.is_some_and(|at| at.elapsed() < LOG_INTERVAL);
        if is_logged || self.age() < LOGGED_AFTER {
            return Ok(());
        }
        self.logged_at = Some(Instant::now());
        let found: Vec<(String, Option<String>)> = FindHolder {}.load(connection).await?;
        let (holder, since) = found.into_iter().next().unwrap_or_default();
        tracing::warn!(
            holder,
            since,
            waiting_seconds = self.age().as_secs(),
            "watches wait: an open transaction keeps new rows of the journal from being followed; end \
             it, or grant pg_read_all_stats if no holder is named"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_age_counts_from_the_first_row_that_waits_at_a_horizon() {
        let mut horizon = Horizon::default();
        assert!(horizon.note(10, false));
        advance(SECOND).await;
        // The next transaction, which has the number of the horizon, stays open.
        assert!(!horizon.note(10, true));
        assert_eq!(horizon.age(), Duration::ZERO);
        advance(SECOND).await;
        assert!(!horizon.note(10, true));
        assert_eq!(horizon.age(), SECOND);
        assert!(horizon.note(11, true));
        assert_eq!(horizon.age(), Duration::ZERO);
        advance(SECOND).await;
        assert!(!horizon.note(11, false));
        assert_eq!(horizon.age(), Duration::ZERO);
    }
}
