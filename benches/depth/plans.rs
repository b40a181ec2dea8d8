//! Finds queries that read far more rows than they return, from the plans that auto_explain logs
//! for every case.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
};

use crate::{Result, cluster::Cluster, plan::ExplainedQuery, side::Side};

/// The reported queries read more than this number of rows for each row returned.
const MAX_READ_RATIO: f64 = 10.0;

/// The number of calls per case: enough for PostgreSQL to switch to a generic plan, if it does.
const CALLS: u64 = 12;

/// A query that reads far more rows than it returns.
pub struct ExpensiveQuery {
    /// The name of the case.
    pub case: String,
    /// The number of rows in the response.
    pub returned: usize,
    /// The query and its plan.
    pub explained: ExplainedQuery,
}

/// Turns auto_explain on for new connections to a database.
pub async fn enable_auto_explain(cluster: &Cluster, database: &str) -> Result<()> {
    // Fails here, and not at every connection, if the module is not installed.
    cluster.execute(database, "LOAD 'auto_explain'").await?;
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_analyze = on",
        "auto_explain.log_buffers = on",
        "auto_explain.log_timing = off",
        "auto_explain.log_format = json",
    ] {
        let alter = format!("ALTER DATABASE {database} SET {setting}");
        cluster.execute(database, &alter).await?;
    }
    Ok(())
}

/// Calls every case of a side with auto_explain and returns the expensive queries.
pub async fn find_expensive(
    cluster: &Cluster,
    database: &str,
    side: &Side,
    only: &str,
) -> Result<Vec<ExpensiveQuery>> {
    let mut found = Vec::new();
    let log = cluster.path("data/postgresql.log");
    for case in side.cases.iter().filter(|case| case.name().contains(only)) {
        let page_token = side.page_token(case).await?;
        wait_idle(cluster, database).await?;
        let mut log = Tail::open(log.clone())?;
        let mut returned = 0;
        for number in 0..CALLS {
            returned = side.call(case, number, &page_token).await?.rows;
        }
        wait_idle(cluster, database).await?;
        let expensive = last_of_each(&log.read()?)
            .into_iter()
            .filter(|explained| explained.rows_read > MAX_READ_RATIO * returned.max(1) as f64);
        found.extend(expensive.map(|explained| ExpensiveQuery {
            case: case.name(),
            returned,
            explained,
        }));
    }
    Ok(found)
}

/// Waits until no statement is running. PostgreSQL logs the plan at the end of a statement, which
/// may be after its response.
async fn wait_idle(cluster: &Cluster, database: &str) -> Result<()> {
    let busy = format!(
        "DO $$ BEGIN
             WHILE EXISTS (SELECT FROM pg_stat_activity
                            WHERE datname = '{database}' AND state = 'active') LOOP
                 PERFORM pg_stat_clear_snapshot();
             END LOOP;
         END $$"
    );
    // Runs in another database, so that its own plan is not logged.
    cluster.execute(cluster.postgres.database(), &busy).await
}

/// Returns the last plan of each query that ran with every call. Queries that ran less often
/// belong to background tasks such as the sweeper.
fn last_of_each(log: &str) -> Vec<ExplainedQuery> {
    let mut queries: BTreeMap<String, (u64, ExplainedQuery)> = BTreeMap::new();
    for explained in ExplainedQuery::all(log) {
        let entry = queries.entry(explained.query.clone());
        let (count, last) = entry.or_insert((0, ExplainedQuery::default()));
        *count += 1;
        *last = explained;
    }
    let queries = queries.into_values();
    let regular = queries.filter(|(count, _)| *count >= CALLS);
    regular.map(|(_, explained)| explained).collect()
}

/// Reads what is appended to a log after the value is created.
struct Tail {
    path: PathBuf,
    from: u64,
}

impl Tail {
    fn open(path: PathBuf) -> Result<Self> {
        let from = path.metadata()?.len();
        Ok(Tail { path, from })
    }

    fn read(&mut self) -> Result<String> {
        let mut file = File::open(&self.path)?;
        // A shorter file means that the log was rotated.
        let is_rotated = file.metadata()?.len() < self.from;
        file.seek(SeekFrom::Start(if is_rotated { 0 } else { self.from }))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
