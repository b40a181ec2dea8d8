//! The command line.

mod fsm;
mod prune;
mod remote;
mod token;

use std::{io::Write, path::Path};

use clap::{Parser, Subcommand};

use crate::{
    config::{DatabaseSettings, DatabaseSource, Settings},
    db::migrations,
    embedded::{self, Embedded},
    health, server,
    telemetry::{LogSettings, Telemetry},
};

/// The book of record for bridge nodes: workflows, state machines, aggregates
/// and the node registry behind one gRPC API on PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "bridgebook", version)]
pub struct Cli {
    #[command(flatten)]
    log: LogSettings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the gRPC API.
    Serve(Box<Settings>),
    /// Look after the database's schema. With the private database, only while
    /// no service runs on it.
    Migrate {
        #[command(subcommand)]
        action: Migrate,
        #[command(flatten)]
        database: DatabaseSettings,
    },
    /// Look after the tokens with which nodes may call, straight on the database.
    Token(token::TokenCommand),
    /// Remove rows that are older than they get, as the service does by itself; or count
    /// them.
    Prune(prune::PruneCommand),
    /// Look at the state machines of a running service.
    #[command(subcommand)]
    Fsm(fsm::Fsm),
    /// Ask a running service for its health; exits with 0 if it is SERVING.
    Health {
        /// The address of the service.
        #[arg(env = "BRIDGEBOOK_LISTEN", default_value = "127.0.0.1:50051")]
        address: String,
        #[command(flatten)]
        tls: remote::TlsArguments,
    },
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Migrate {
    /// Apply the migrations that are pending.
    Up,
    /// Take the last migration back, with all data that it brought.
    Down,
    /// Show which migrations are applied and which are pending.
    Status,
    /// Take the last migration back and apply it again.
    Redo,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The settings are not as they must be; all faults, a line each.
    #[error("{}", .0.join("\n"))]
    Usage(Vec<String>),
    /// The service failed.
    #[error("the service failed")]
    Serve(#[from] server::ServeError),
    /// The private PostgreSQL failed.
    #[error("the private PostgreSQL failed")]
    Embedded(#[from] embedded::EmbeddedError),
    /// There is nothing to look at.
    #[error("there is no database in {}; --data-dir or --database-url say where it is", .0.display())]
    NoDatabase(std::path::PathBuf),
    /// A migration failed.
    #[error("the migration failed")]
    Migrate(#[from] migrations::MigrationError),
    /// The database can't be reached.
    #[error("cannot connect to the database")]
    ConnectDatabase(#[from] diesel::ConnectionError),
    /// The database failed.
    #[error("the database failed")]
    Database(#[source] crate::db::DbError),
    /// What was asked for can't be done.
    #[error("refused")]
    Refused(#[source] Box<crate::error::Error>),
    /// The service is not healthy.
    #[error("not healthy")]
    Health(#[from] health::ProbeError),
    /// The service can't be reached.
    #[error("cannot connect to the service")]
    Connect(#[from] tonic::transport::Error),
    /// The service refused.
    #[error("the service answered {}: {}", .0.code(), .0.message())]
    Call(Box<tonic::Status>),
    /// A file can't be read.
    #[error(transparent)]
    File(#[from] crate::reload::ReadError),
    /// What is counted has names that can't be.
    #[error("the figures have names that can't be")]
    Metrics(#[from] prometheus::Error),
    /// The output could not be written.
    #[error("cannot write the output")]
    Output(#[from] std::io::Error),
}

impl From<Vec<String>> for CliError {
    fn from(faults: Vec<String>) -> Self {
        CliError::Usage(faults)
    }
}

impl Cli {
    /// What is to be logged.
    #[must_use]
    pub fn log(&self) -> &LogSettings {
        &self.log
    }

    /// Does what the command line says.
    ///
    /// # Errors
    /// Every [`CliError`].
    pub async fn run(self, telemetry: &Telemetry) -> Result<(), CliError> {
        match self.command {
            Command::Serve(settings) => Ok(server::serve(settings.check()?, telemetry).await?),
            Command::Migrate { action, database } => migrate(action, database.check()?).await,
            Command::Token(command) => command.run().await,
            Command::Prune(command) => command.run().await,
            Command::Fsm(command) => command.run().await,
            Command::Health { address, tls } => {
                let tls = tls.config(&address)?;
                health::probe(&address, tls).await?;
                Ok(writeln!(std::io::stdout(), "SERVING")?)
            }
        }
    }
}

async fn migrate(action: Migrate, database: DatabaseSource) -> Result<(), CliError> {
    if let (DatabaseSource::Embedded(data_dir), Migrate::Down | Migrate::Status | Migrate::Redo) =
        (&database, action)
    {
        require_cluster(data_dir)?;
    }
    on_database(database, async |url| run_migrate(action, url).await).await
}

fn require_cluster(data_dir: &Path) -> Result<(), CliError> {
    match embedded::exists(data_dir) {
        true => Ok(()),
        // It would be made, and be empty: who only looks has the wrong directory.
        false => Err(CliError::NoDatabase(data_dir.to_owned())),
    }
}

/// Does something on a database whose service may be running, or not; a private one
/// is brought up to date first.
async fn on_live_database(
    database: DatabaseSource,
    work: impl AsyncFnOnce(&str) -> Result<(), CliError>,
) -> Result<(), CliError> {
    match database {
        // Its service may well be running, and need not stop for this.
        DatabaseSource::Embedded(data_dir) if embedded::is_running(&data_dir) => {
            work(&embedded::database_url(&data_dir)?).await
        }
        database => {
            let is_private = matches!(database, DatabaseSource::Embedded(_));
            on_database(database, async |url| {
                if is_private {
                    migrations::up(url).await?;
                }
                work(url).await
            })
            .await
        }
    }
}

/// Does something on a database, and runs the private one meanwhile.
async fn on_database(
    database: DatabaseSource,
    work: impl AsyncFnOnce(&str) -> Result<(), CliError>,
) -> Result<(), CliError> {
    match database {
        DatabaseSource::Url(url) => work(&url).await,
        DatabaseSource::Embedded(data_dir) => {
            let embedded = Embedded::start(embedded::Settings::new(data_dir)).await?;
            let result = work(&embedded.database_url()).await;
            embedded.stop().await?;
            result
        }
    }
}

async fn run_migrate(action: Migrate, url: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout();
    match action {
        Migrate::Up => {
            let applied = migrations::up(url).await?;
            for version in &applied {
                writeln!(out, "applied {version}")?;
            }
            if applied.is_empty() {
                writeln!(out, "nothing to apply, the schema is up to date")?;
            }
        }
        Migrate::Down => writeln!(out, "took back {}", migrations::down(url).await?)?,
        Migrate::Redo => writeln!(
            out,
            "took back and applied {}",
            migrations::redo(url).await?
        )?,
        Migrate::Status => {
            for migration in migrations::status(url).await? {
                match migration.applied_at {
                    Some(at) => {
                        let at = at.format("%Y-%m-%d %H:%M:%SZ");
                        writeln!(out, "applied {at}  {}", migration.name)?;
                    }
                    None => writeln!(out, "pending {:20}  {}", "", migration.name)?,
                }
            }
        }
    }
    Ok(())
}
