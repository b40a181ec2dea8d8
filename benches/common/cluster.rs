//! A temporary PostgreSQL with several databases. It is removed after the benchmark.

use std::{env, fs, path::PathBuf, process};

use bridgebook::embedded::{Embedded, Settings};
use diesel::{QueryableByName, sql_types};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use crate::Result;

/// The PostgreSQL and its directory.
pub struct Cluster {
    // Declared before the directory, because fields are dropped in order.
    /// The PostgreSQL.
    pub postgres: Embedded,
    directory: Directory,
}

impl Cluster {
    /// Starts a PostgreSQL with the production settings and the given additional ones.
    pub async fn open(parameters: &[(&str, &str)]) -> Result<Self> {
        let path = env::temp_dir().join(format!("bridgebook-bench-{}", process::id()));
        let directory = Directory(path);
        let mut settings = Settings::new(directory.0.join("data"));
        let parameters = parameters.iter();
        settings.parameters = parameters
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Ok(Cluster {
            postgres: Embedded::start(settings).await?,
            directory,
        })
    }

    /// Creates an empty database.
    pub async fn create(&self, database: &str) -> Result<()> {
        let create = format!("CREATE DATABASE {database}");
        self.execute(self.postgres.database(), &create).await
    }

    /// Returns a path in the temporary directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.0.join(name)
    }

    /// Returns PostgreSQL's version.
    pub async fn version(&self) -> Result<String> {
        let version = diesel::sql_query("SELECT current_setting('server_version') AS text");
        let mut connection = self.connect(self.postgres.database()).await?;
        Ok(version.get_result::<Line>(&mut connection).await?.text)
    }

    /// Returns the URL of a database.
    pub fn url(&self, database: &str) -> String {
        let url = self.postgres.database_url();
        let server = url.strip_suffix(self.postgres.database()).unwrap_or(&url);
        format!("{server}{database}")
    }

    /// Runs a statement.
    pub async fn execute(&self, database: &str, statement: &str) -> Result<()> {
        Ok(self
            .connect(database)
            .await?
            .batch_execute(statement)
            .await?)
    }

    /// Connects to a database.
    pub async fn connect(&self, database: &str) -> Result<AsyncPgConnection> {
        Ok(AsyncPgConnection::establish(&self.url(database)).await?)
    }

    /// Stops PostgreSQL, waits for its end, and removes the directory.
    pub async fn close(self) -> Result<()> {
        Ok(self.postgres.stop().await?)
    }
}

/// A directory that is removed when the value is dropped.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = sql_types::Text)]
    text: String,
}
