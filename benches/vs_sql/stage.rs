//! What both sides work on: one PostgreSQL with two databases that are alike.

use std::{env, ffi::OsStr, fs, path::PathBuf, process};

use bridgebook::embedded::{Embedded, Settings};
use diesel::{QueryableByName, sql_types};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use crate::{Result, service};

/// The database that bridgebook works on.
pub const SERVED: &str = "served";
/// The database that pgbench works on.
pub const DIRECT: &str = "direct";

/// How many workflows can be read and be given steps: more than any cache of
/// ours holds, and few enough that PostgreSQL has them all in memory.
pub const READABLE: u64 = 10_000;

/// The PostgreSQL and its directory.
pub struct Stage {
    // Before the directory, as fields are dropped in order.
    postgres: Embedded,
    directory: Directory,
}

impl Stage {
    /// Starts a PostgreSQL with the settings of production.
    pub async fn open() -> Result<Self> {
        let path = env::temp_dir().join(format!("bridgebook-bench-{}", process::id()));
        let directory = Directory(path);
        let postgres = Embedded::start(Settings::new(directory.0.join("data"))).await?;
        Ok(Stage {
            postgres,
            directory,
        })
    }

    /// Makes both databases, with the same tables, indexes and rows.
    pub async fn prepare(&self) -> Result<()> {
        for database in [SERVED, DIRECT] {
            let create = format!("CREATE DATABASE {database}");
            self.execute(self.postgres.database(), &create).await?;
            let url = self.url(database);
            service::migrate(&["--database-url".as_ref(), OsStr::new(&url)]).await?;
            self.seed(database).await?;
        }
        Ok(())
    }

    /// The PostgreSQL.
    pub fn postgres(&self) -> &Embedded {
        &self.postgres
    }

    /// A path in the directory that is removed in the end.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.0.join(name)
    }

    /// What the server says its version is.
    pub async fn version(&self) -> Result<String> {
        let version = diesel::sql_query("SELECT current_setting('server_version') AS text");
        let mut connection = self.connect(SERVED).await?;
        Ok(version.get_result::<Line>(&mut connection).await?.text)
    }

    /// The URL of one of the two databases.
    pub fn url(&self, database: &str) -> String {
        let url = self.postgres.database_url();
        let server = url.strip_suffix(self.postgres.database()).unwrap_or(&url);
        format!("{server}{database}")
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
        Ok(self
            .connect(database)
            .await?
            .batch_execute(statement)
            .await?)
    }

    /// Runs a query whose answer is one column `number` of one row.
    pub async fn number(&self, database: &str, query: &str) -> Result<u64> {
        let answer = diesel::sql_query(query);
        let answer: Number = answer
            .get_result(&mut self.connect(database).await?)
            .await?;
        Ok(u64::try_from(answer.number)?)
    }

    async fn connect(&self, database: &str) -> Result<AsyncPgConnection> {
        Ok(AsyncPgConnection::establish(&self.url(database)).await?)
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
        Ok(self.postgres.stop().await?)
    }
}

/// A directory that goes when it is dropped.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = sql_types::BigInt)]
    number: i64,
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = sql_types::Text)]
    text: String,
}
