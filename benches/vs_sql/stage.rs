//! What both sides work on: one PostgreSQL with two databases that are alike.

use std::{ffi::OsStr, ops::Deref};

use diesel::{QueryableByName, sql_types};
use diesel_async::RunQueryDsl;

use crate::{Result, cluster::Cluster, service};

/// The database that bridgebook works on.
pub const SERVED: &str = "served";
/// The database that pgbench works on.
pub const DIRECT: &str = "direct";

/// How many workflows can be read and be given steps: more than any cache of
/// ours holds, and few enough that PostgreSQL has them all in memory.
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
    /// Starts a PostgreSQL with the settings of production.
    pub async fn open() -> Result<Self> {
        Ok(Stage(Cluster::open(&[]).await?))
    }

    /// Makes both databases, with the same tables, indexes and rows.
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
        // By reference: for anything else the name is Diesel's.
        let cluster: &Cluster = self;
        cluster.execute(database, statement).await
    }

    /// Runs a query whose answer is one column `number` of one row.
    pub async fn number(&self, database: &str, query: &str) -> Result<u64> {
        let answer = diesel::sql_query(query);
        let answer: Number = answer
            .get_result(&mut self.connect(database).await?)
            .await?;
        Ok(u64::try_from(answer.number)?)
    }

    /// Makes the tables of both databases ready for a subject that is new to
    /// them: no dead rows, fresh statistics, and nothing left to autovacuum.
    pub async fn tidy(&self) -> Result<()> {
        for database in [SERVED, DIRECT] {
            self.execute(database, "VACUUM ANALYZE").await?;
        }
        Ok(())
    }

    /// Lets the next measurement begin with nothing left to write, so that none
    /// pays for the one before it.
    pub async fn settle(&self) -> Result<()> {
        self.execute(DIRECT, "CHECKPOINT").await
    }

    /// Stops PostgreSQL and waits for its end, then removes everything.
    pub async fn close(self) -> Result<()> {
        self.0.close().await
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = sql_types::BigInt)]
    number: i64,
}
