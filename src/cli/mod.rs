//! The command line: parses arguments and runs the command.

mod backup;
mod copy;
mod database;
mod database_command;
mod fsm;
mod grants;
mod journal;
mod migrate;
mod move_out;

mod prune;
mod quota;
mod remote;
mod restore;
mod token;
mod upgrade;

use std::{
    collections::HashSet,
    io::{ErrorKind, Write},
    sync::Arc,
};

use clap::{CommandFactory, Parser, Subcommand};

use self::database::checked;
use crate::{
    client::{
        probe::{ProbeError, probe},
        retry::reason,
    },
    config::{ConfigErrors, DatabaseSettings, Settings},
    db::{address::AddressError, migrations},
    domain::error::{Cause, Error},
    embedded,
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
    /// Migrate the schema of the database. With the private PostgreSQL, every action but `status`
    /// and `up --plan` requires that the service is stopped.
    Migrate {
        #[command(subcommand)]
        action: migrate::Migrate,
        #[command(flatten)]
        database: DatabaseSettings,
    },
    /// Create, list and revoke tokens directly in the database.
    Token(token::TokenCommand),
    /// Back up, restore, move or upgrade the private PostgreSQL; print the grants for an external one.
    #[command(subcommand)]
    Database(database_command::DatabaseCommand),
    /// Remove or count expired rows. The service also removes them in the background.
    Prune(prune::PruneCommand),
    /// Set, list and delete the quotas of a running service.
    #[command(subcommand)]
    Quota(quota::QuotaCommand),
    /// Show state machines of a running service.
    #[command(subcommand)]
    Fsm(fsm::Fsm),
    /// Read the journal of a running service.
    #[command(subcommand)]
    Journal(journal::Journal),
    /// Check the health of a running service. Exits with 0 if it is SERVING.
    Health {
        /// The address of the service, as host and port.
        #[arg(env = "BRIDGEBOOK_LISTEN", default_value = "127.0.0.1:50051")]
        address: String,
        #[command(flatten)]
        tls: remote::TlsArguments,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Settings or arguments are invalid.
    #[error(transparent)]
    Usage(#[from] ConfigErrors),
    /// The service failed.
    #[error("the service failed")]
    Serve(#[from] server::ServeError),
    /// The private PostgreSQL failed.
    #[error(transparent)]
    Embedded(#[from] embedded::EmbeddedError),
    /// The data directory has no cluster.
    #[error(transparent)]
    NoDatabase(embedded::EmbeddedError),
    /// The address of the private PostgreSQL is invalid.
    #[error("the address of the private PostgreSQL is invalid")]
    Address(#[from] AddressError),
    /// The schema lacks migrations.
    #[error("the database schema lacks the migrations {}; run `bridgebook migrate up`", .0.join(", "))]
    SchemaBehind(Vec<String>),
    /// The schema could not be read or migrated.
    #[error("cannot read or migrate the database schema")]
    Migrate(#[from] migrations::MigrationError),
    /// A backup, a restore, a move or an upgrade failed.
    #[error(transparent)]
    Copy(#[from] copy::CopyError),
    /// The database is unreachable.
    #[error("cannot connect to the database")]
    ConnectDatabase(#[from] diesel::ConnectionError),
    /// A statement failed.
    #[error("the database failed")]
    Database(#[source] crate::db::DbError),
    /// The service's own rules reject the request.
    #[error("rejected")]
    Rejected(#[source] Box<Error>),
    /// The database or the service's own code failed.
    #[error("the command failed")]
    Failed(#[source] Arc<Cause>),
    /// The service is not healthy.
    #[error("not healthy")]
    Health(#[from] ProbeError),
    /// The service is unreachable.
    #[error("cannot connect to the service at {address}")]
    Connect {
        /// Its address, as host and port.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The service rejected the call.
    #[error("the service answered {}: {}", reason_or_code(.0), .0.message())]
    Call(Box<tonic::Status>),
    /// The journal is no longer complete after the position that was asked for.
    #[error(
        "cannot begin after this position: rows after it are gone, because retention removed them, or \
         the database was restored or failed over without them; to accept the gap, begin with \
         --after {oldest_position}"
    )]
    ResumePointGone {
        /// The position after which it is complete.
        oldest_position: String,
    },
    /// A file is not readable.
    #[error(transparent)]
    File(#[from] crate::util::file_watch::ReadError),
    /// A metric could not be registered.
    #[error("cannot register a metric")]
    Metrics(#[from] prometheus::Error),
    /// The output could not be written.
    #[error("cannot write the output")]
    Output(#[from] std::io::Error),
}

/// A command is no call, so it has no request id that could be reported.
impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        match error {
            Error::Internal(cause) | Error::StatementTimeout(cause) => CliError::Failed(cause),
            other => CliError::Rejected(Box::new(other)),
        }
    }
}

impl CliError {
    /// Returns whether the reader of the output has closed its end, as `head` does. Such an error is
    /// not reported.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, CliError::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

impl Cli {
    /// Returns the settings of logs and traces.
    #[must_use]
    pub fn log(&self) -> &LogSettings {
        &self.log
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Every [`CliError`].
    pub async fn run(self, telemetry: &Telemetry) -> Result<(), CliError> {
        match self.command {
            Command::Serve(settings) => {
                let config = settings.check()?;
                for name in unknown_variables() {
                    tracing::warn!("{name} is not a setting and is ignored");
                }
                Ok(server::serve(config, telemetry).await?)
            }
            Command::Migrate { action, database } => action.run(checked(database)?).await,
            Command::Token(command) => command.run().await,
            Command::Database(command) => command.run().await,
            Command::Prune(command) => command.run().await,
            Command::Quota(command) => command.run().await,
            Command::Fsm(command) => command.run().await,
            Command::Journal(command) => command.run().await,
            Command::Health { address, tls } => {
                let tls = tls.config(&address)?;
                probe(&address, tls).await.map_err(health_error)?;
                Ok(writeln!(std::io::stdout(), "SERVING")?)
            }
        }
    }
}

/// Returns the reason of a failed call, by which docs/troubleshooting.md is ordered. A failure of the
/// network has its code only.
fn reason_or_code(status: &tonic::Status) -> String {
    reason(status).unwrap_or_else(|| format!("{:?}", status.code()))
}

/// Returns the error of a health check. An address without a port is an invalid argument, and not a
/// service that is unhealthy.
fn health_error(error: ProbeError) -> CliError {
    match &error {
        ProbeError::Address { source, .. } if source.kind() == ErrorKind::InvalidInput => {
            ConfigErrors::from(vec![format!("ADDRESS: {error}")]).into()
        }
        _ => error.into(),
    }
}

/// Returns the environment variables that look like settings but are unknown.
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
    // Kubernetes sets these in every pod that runs beside a Service named bridgebook.
    let kubernetes = ["BRIDGEBOOK_SERVICE_", "BRIDGEBOOK_PORT"];
    unknown
        .filter(|name| name.starts_with("BRIDGEBOOK_"))
        .filter(|name| !kubernetes.iter().any(|it| name.starts_with(it)))
        .collect()
}
