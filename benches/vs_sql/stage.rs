//! The test bed of both sides: one PostgreSQL with two identical databases.

use std::{ffi::OsStr, ops::Deref};

use diesel::{QueryableByName, sql_types};
use diesel_async::RunQueryDsl;

use crate::{Result, cluster::Cluster, service};

/// The database that bridgebook works on.
pub const SERVED: &str = "served";
/// The database that pgbench works on.
pub const DIRECT: &str = "direct";

/// The number of workflows that are read and given steps: more than any cache of the service
/// holds, and few enough for PostgreSQL to keep all of them in memory.
pub const READABLE: u64 = 10_000;

/// The PostgreSQL with the two databases.
pub struct Stage(Cluster);

impl Deref for Stage {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Stage {
    /// Starts a PostgreSQL with the production settings.
    pub async fn open() -> Result<Self> {
        Ok(Stage(Cluster::open(&[]).await?))
    }

    /// Creates both databases, with the same tables, indexes and rows.
    pub async fn prepare(&self) -> Result<()> {
        for database in [SERVED, DIRECT] {
            self.create(database).await?;
            let url = self.url(database);
            service::migrate(&["--database-url".as_ref(), OsStr::new(&url)]).await?;
            self.seed(database).await?;
        }
        Ok(())
    }

    async fn seed(&self, database: &str) -> Result<()> {
        self.add_workflows(database, 1, READABLE).await?;
        let steps = diesel::sql_query(include_str!("seed_steps.sql"));
        let steps = steps.bind::<sql_types::BigInt, _>(1);
        let steps = steps.bind::<sql_types::BigInt, _>(i64::try_from(READABLE)?);
        steps.execute(&mut self.connect(database).await?).await?;
        Ok(())
    }

    /// Adds workflows with the numbers from `first` to `last`.
    pub async fn add_workflows(&self, database: &str, first: u64, last: u64) -> Result<()> {
        let workflows = diesel::sql_query(include_str!("seed_workflows.sql"));
        let workflows = workflows.bind::<sql_types::BigInt, _>(i64::try_from(first)?);
        let workflows = workflows.bind::<sql_types::BigInt, _>(i64::try_from(last)?);
        workflows
            .execute(&mut self.connect(database).await?)
            .await?;
        Ok(())
    }

    /// Runs a statement.
    pub async fn execute(&self, database: &str, statement: &str) -> Result<()> {
        // By reference, because otherwise the name resolves to Diesel's method.
        let cluster: &Cluster = self;
        cluster.execute(database, statement).await
    }

    /// Runs a query that returns one row with one column, `number`.
    pub async fn number(&self, database: &str, query: &str) -> Result<u64> {
        let query = diesel::sql_query(query);
        let row: Number = query.get_result(&mut self.connect(database).await?).await?;
        Ok(u64::try_from(row.number)?)
    }

    /// Vacuums and analyzes both databases before a new subject: no dead rows, fresh
    /// statistics, and no work left for autovacuum.
    pub async fn vacuum(&self) -> Result<()> {
        for database in [SERVED, DIRECT] {
            self.execute(database, "VACUUM ANALYZE").await?;
        }
        Ok(())
    }

    /// Writes a checkpoint, so that no measurement pays for the writes of the one before it.
    pub async fn checkpoint(&self) -> Result<()> {
        self.execute(DIRECT, "CHECKPOINT").await
    }

    /// Stops PostgreSQL, waits for its end, and removes everything.
    pub async fn close(self) -> Result<()> {
        self.0.close().await
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = sql_types::BigInt)]
    number: i64,
}
