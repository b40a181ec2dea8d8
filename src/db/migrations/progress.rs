//! Shows the progress of index builds: as a bar on a terminal, and in the log elsewhere.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use diesel::{
    QueryResult, QueryableByName,
    sql_types::{BigInt, Integer, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::time::sleep;

use crate::{
    db::{DatabaseAddress, connect::connect, planner::raw_statement},
    util::progress::Bar,
};

/// The interval at which PostgreSQL is asked for the progress.
const POLL: Duration = Duration::from_secs(1);

/// The delay of the first line of the log. Most migrations take less.
const FIRST_LINE: Duration = Duration::from_secs(3);

/// The interval of the other lines of the log.
const LINES: Duration = Duration::from_secs(10);

raw_statement! {
/// Selects the progress of a session, and the session that it waits for.
const PROGRESS(Integer) = "
    SELECT coalesce(build.phase, 'running') AS phase,
           nullif(build.relid::regclass::text, '-') AS table_name,
           nullif(build.index_relid::regclass::text, '-') AS index_name,
           CASE WHEN build.tuples_total > 0 AND build.phase LIKE '%tuples in tree'
                THEN 100 * build.tuples_done / build.tuples_total
                WHEN build.blocks_total > 0 THEN 100 * build.blocks_done / build.blocks_total
           END AS percent,
           blocker.pid AS blocker_pid,
           blocker.state AS blocker_state,
           extract(epoch FROM now() - blocker.xact_start)::bigint AS blocker_age_s
      FROM (SELECT $1::integer AS pid) AS own
      LEFT JOIN pg_stat_progress_create_index AS build ON build.pid = own.pid
      LEFT JOIN pg_stat_activity AS blocker
        ON blocker.pid = coalesce(nullif(build.current_locker_pid, 0)::integer,
                                  (pg_blocking_pids(own.pid))[1])";
}

/// The progress of a session that migrates.
#[derive(Debug, QueryableByName)]
struct Progress {
    /// The phase of the build, in PostgreSQL's words; `running` if it builds no index.
    #[diesel(sql_type = Text)]
    phase: String,
    /// The table of the index.
    #[diesel(sql_type = Nullable<Text>)]
    table_name: Option<String>,
    /// The index.
    #[diesel(sql_type = Nullable<Text>)]
    index_name: Option<String>,
    /// How much of the phase is done.
    #[diesel(sql_type = Nullable<BigInt>)]
    percent: Option<i64>,
    /// The session that it waits for.
    #[diesel(sql_type = Nullable<Integer>)]
    blocker_pid: Option<i32>,
    /// What that session does. `None` if the role may not see it.
    #[diesel(sql_type = Nullable<Text>)]
    blocker_state: Option<String>,
    /// The age of that session's transaction, in seconds. `None` if the role may not see it.
    #[diesel(sql_type = Nullable<BigInt>)]
    blocker_age_s: Option<i64>,
}

impl Progress {
    async fn read(connection: &mut AsyncPgConnection, pid: i32) -> QueryResult<Self> {
        let query = diesel::sql_query(PROGRESS).bind::<Integer, _>(pid);
        query.get_result(connection).await
    }

    /// Returns what the bar says. A terminal may cut the end off.
    fn text(&self, event: &str) -> String {
        let state = self.blocker_state.as_deref().unwrap_or("unknown");
        let doing = match self.blocker_pid {
            Some(pid) => format!("waits for pid {pid} ({state})"),
            None => self.phase.clone(),
        };
        let mut text = format!("{event}: {doing}");
        for name in [&self.index_name, &self.table_name].into_iter().flatten() {
            text.push_str(", ");
            text.push_str(name);
        }
        text
    }
}

/// Shows the progress of a session on a terminal, or logs it.
pub(super) struct Reporter {
    event: &'static str,
    bar: Option<Bar>,
    start: Instant,
    next_line: Duration,
}

impl Reporter {
    /// Returns a reporter that shows nothing yet. Each line of the log begins with `event`.
    pub(super) fn new(event: &'static str) -> Self {
        Self {
            event,
            bar: None,
            start: Instant::now(),
            next_line: FIRST_LINE,
        }
    }

    /// Returns whether it has something to show now: on a terminal each second, else when the next line
    /// of the log is due.
    pub(super) fn is_due(&mut self) -> bool {
        let elapsed = self.start.elapsed();
        let bar = match &self.bar {
            None if elapsed >= POLL => self.bar.insert(Bar::new(self.event)),
            None => return false,
            Some(bar) => bar,
        };
        !bar.is_hidden() || elapsed >= self.next_line
    }

    /// Reports on the session with the process id `pid`.
    pub(super) async fn report_on(
        &mut self,
        connection: &mut AsyncPgConnection,
        pid: i32,
    ) -> QueryResult<()> {
        let progress = Progress::read(connection, pid).await?;
        match &self.bar {
            Some(bar) if !bar.is_hidden() => {
                let percent = u64::try_from(progress.percent.unwrap_or(0)).unwrap_or(0);
                bar.show(percent, progress.text(self.event));
            }
            _ => self.log(pid, &progress),
        }
        Ok(())
    }

    fn log(&mut self, pid: i32, progress: &Progress) {
        let elapsed = self.start.elapsed();
        self.next_line = elapsed + LINES;
        tracing::info!(
            pid,
            index = progress.index_name,
            table = progress.table_name,
            phase = progress.phase,
            percent = progress.percent,
            waits_for_pid = progress.blocker_pid,
            waits_for_state = progress.blocker_state,
            waits_for_transaction_s = progress.blocker_age_s,
            elapsed_s = elapsed.as_secs(),
            "{}",
            self.event
        );
    }
}

/// Reports on the session with the process id `pid` until it is dropped, on a connection of its own.
/// Without a connection it reports nothing, and tries again.
pub(super) async fn watch(address: &DatabaseAddress, event: &'static str, pid: i32) -> Infallible {
    let mut reporter = Reporter::new(event);
    let mut watching = None;
    loop {
        sleep(POLL).await;
        if !reporter.is_due() {
            continue;
        }
        if watching.is_none() {
            watching = connect(address).await.ok();
        }
        if let Some(connection) = &mut watching
            && reporter.report_on(connection, pid).await.is_err()
        {
            watching = None;
        }
    }
}
