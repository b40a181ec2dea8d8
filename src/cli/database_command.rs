//! `bridgebook database`: what an owner of the database does for the service.

use clap::Subcommand;

use super::{
    CliError, backup::Backup, grants::Grants, move_out::MoveOut, restore::Restore, upgrade::Upgrade,
};

#[derive(Debug, Subcommand)]
pub(super) enum DatabaseCommand {
    /// Back up the private PostgreSQL into a file, in the format of `pg_dump -Fc`. The service may run.
    Backup(Backup),
    /// Restore a file of `backup` or `pg_dump -Fc` into a private PostgreSQL without rows. The service
    /// must be stopped.
    Restore(Restore),
    /// Copy the private PostgreSQL into an empty database of another one, and compare row counts.
    /// The service must be stopped. Afterwards it no longer serves the private one.
    MoveOut(MoveOut),
    /// Copy the private PostgreSQL into one of the newest installed version, and keep the old one. The
    /// service must be stopped.
    Upgrade(Upgrade),
    /// Print the GRANT statements for a role with which `serve` works, and with no right that it does
    /// not need. Connects to no database.
    Grants(Grants),
}

impl DatabaseCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            DatabaseCommand::Backup(command) => command.run().await,
            DatabaseCommand::Restore(command) => command.run().await,
            DatabaseCommand::MoveOut(command) => command.run().await,
            DatabaseCommand::Upgrade(command) => command.run().await,
            DatabaseCommand::Grants(command) => command.run(),
        }
    }
}
