//! The command line.

mod fsm;
mod prune;
mod remote;
mod token;

use std::{collections::HashSet, io::Write, path::Path};

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    client::probe::{ProbeError, probe},
    config::{DatabaseSettings, DatabaseSource, Settings},
    db::migrations,
    embedded::{self, Embedded},
    ops::telemetry::{LogSettings, Telemetry},
    server,
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
    /// no service runs on it, but for `status`.
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
    /// The schema lacks migrations.
    #[error("the schema of the database is behind, it lacks {}; run `bridgebook migrate up`", .0.join(", "))]
    SchemaBehind(Vec<String>),
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
    Refused(#[source] Box<crate::domain::error::Error>),
    /// The service is not healthy.
    #[error("not healthy")]
    Health(#[from] ProbeError),
    /// The service can't be reached.
    #[error("cannot connect to the service")]
    Connect(#[from] tonic::transport::Error),
    /// The service refused.
    #[error("the service answered {}: {}", .0.code(), .0.message())]
    Call(Box<tonic::Status>),
    /// A file can't be read.
    #[error(transparent)]
    File(#[from] crate::util::file_watch::ReadError),
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
            Command::Serve(settings) => {
                let config = settings.check()?;
                for name in unknown_variables() {
                    tracing::warn!("{name} is no setting: it is ignored");
                }
                Ok(server::serve(config, telemetry).await?)
            }
            Command::Migrate { action, database } => migrate(action, database.check()?).await,
            Command::Token(command) => command.run().await,
            Command::Prune(command) => command.run().await,
            Command::Fsm(command) => command.run().await,
            Command::Health { address, tls } => {
                let tls = tls.config(&address)?;
                probe(&address, tls).await?;
                Ok(writeln!(std::io::stdout(), "SERVING")?)
            }
        }
    }
}

/// The variables of the environment that look like settings, and are none.
fn unknown_variables() -> Vec<String> {
    let mut known = HashSet::new();
    let mut commands = vec![Cli::command()];
    while let Some(command) = commands.pop() {
        let names = command.get_arguments().filter_map(clap::Arg::get_env);
        known.extend(names.map(ToOwned::to_owned));
        commands.extend(command.get_subcommands().cloned());
    }
    let all = std::env::vars_os().map(|(name, _)| name);
    let unknown = all.filter(|name| !known.contains(name));
    let unknown = unknown.filter_map(|name| name.into_string().ok());
    // Kubernetes tells every pod of a service that is called bridgebook.
    let kubernetes = ["BRIDGEBOOK_SERVICE_", "BRIDGEBOOK_PORT"];
    unknown
        .filter(|name| name.starts_with("BRIDGEBOOK_"))
        .filter(|name| !kubernetes.iter().any(|it| name.starts_with(it)))
        .collect()
}

async fn migrate(action: Migrate, database: DatabaseSource) -> Result<(), CliError> {
    if let (DatabaseSource::Embedded(data_dir), Migrate::Down | Migrate::Status | Migrate::Redo) =
        (&database, action)
    {
        require_cluster(data_dir)?;
    }
    let database = match action {
        Migrate::Status => where_it_runs(database)?,
        Migrate::Up | Migrate::Down | Migrate::Redo => database,
    };
    on_database(database, async |url| run_migrate(action, url).await).await
}

fn require_cluster(data_dir: &Path) -> Result<(), CliError> {
    match embedded::exists(data_dir) {
        true => Ok(()),
        // It would be made, and be empty: who only looks has the wrong directory.
        false => Err(CliError::NoDatabase(data_dir.to_owned())),
    }
}

/// A private database that runs is like any other: its service need not stop for what
/// is done on it.
fn where_it_runs(database: DatabaseSource) -> Result<DatabaseSource, CliError> {
    Ok(match database {
        DatabaseSource::Embedded(data_dir) if embedded::is_running(&data_dir) => {
            DatabaseSource::Url(embedded::database_url(&data_dir)?)
        }
        other => other,
    })
}

/// Does something on a database whose service may be running, or not; a private one that
/// is not is brought up to date first.
async fn on_live_database(
    database: DatabaseSource,
    work: impl AsyncFnOnce(&str) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let database = where_it_runs(database)?;
    let is_stopped = matches!(database, DatabaseSource::Embedded(_));
    on_database(database, async |url| {
        if is_stopped {
            migrations::up(url).await?;
        }
        match migrations::pending(url).await? {
            pending if pending.is_empty() => work(url).await,
            pending => Err(CliError::SchemaBehind(pending)),
        }
    })
    .await
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
