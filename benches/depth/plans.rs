//! Which queries read much more than they answer: PostgreSQL explains every
//! statement of every case in its log.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
};

use crate::{Result, cluster::Cluster, plan::Explained, side::Side};

/// A query is told of if it reads more than so many rows for each that is answered.
const MUCH: f64 = 10.0;

/// How often a case is called. By then a connection keeps the plan, if it is going to.
const CALLS: u64 = 12;

/// A query that reads much.
pub struct Found {
    /// The case.
    pub case: String,
    /// How many rows the RPC answered.
    pub answered: usize,
    /// The query and its plan.
    pub explained: Explained,
}

/// Has PostgreSQL explain whatever runs in a database from now on, on new connections.
pub async fn explain(cluster: &Cluster, database: &str) -> Result<()> {
    // Better here than at every connection, if it is not installed.
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

/// Calls every case of a side whose database explains; answers the queries that
/// read much.
pub async fn find(
    cluster: &Cluster,
    database: &str,
    side: &Side,
    only: &str,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let log = cluster.path("data/postgresql.log");
    for case in side.cases.iter().filter(|case| case.name().contains(only)) {
        let page_token = side.page_token(case).await?;
        quiesce(cluster, database).await?;
        let mut log = Tail::open(log.clone())?;
        let mut answered = 0;
        for number in 0..CALLS {
            answered = side.call(case, number, &page_token).await?.rows;
        }
        quiesce(cluster, database).await?;
        let much = last_of_each(&log.read()?)
            .into_iter()
            .filter(|explained| explained.rows_read > MUCH * answered.max(1) as f64);
        found.extend(much.map(|explained| Found {
            case: case.name(),
            answered,
            explained,
        }));
    }
    Ok(found)
}

/// Waits until no statement is under way: a statement is explained at its end,
/// which may come after its answer.
async fn quiesce(cluster: &Cluster, database: &str) -> Result<()> {
    let busy = format!(
        "DO $$ BEGIN
             WHILE EXISTS (SELECT FROM pg_stat_activity
                            WHERE datname = '{database}' AND state = 'active') LOOP
                 PERFORM pg_stat_clear_snapshot();
             END LOOP;
         END $$"
    );
    // From elsewhere, so that it is not explained itself.
    cluster.execute(cluster.postgres.database(), &busy).await
}

/// The last plan of each query that ran at every call. What ran less often is the
/// service's own: its sweeper.
fn last_of_each(log: &str) -> Vec<Explained> {
    let mut queries: BTreeMap<String, (u64, Explained)> = BTreeMap::new();
    for explained in Explained::all(log) {
        let entry = queries.entry(explained.query.clone());
        let (count, last) = entry.or_insert((0, Explained::default()));
        *count += 1;
        *last = explained;
    }
    let queries = queries.into_values();
    let regular = queries.filter(|(count, _)| *count >= CALLS);
    regular.map(|(_, explained)| explained).collect()
}

/// What is added to a log from now on.
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
        // The log begins anew when it has become long.
        let is_new = file.metadata()?.len() < self.from;
        file.seek(SeekFrom::Start(if is_new { 0 } else { self.from }))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
