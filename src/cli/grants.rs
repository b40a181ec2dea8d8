//! `bridgebook database`: what an owner of the database has to do for the service.

use std::io::Write;

use clap::{Args, Subcommand};

use super::CliError;
use crate::db::grants;

#[derive(Debug, Subcommand)]
pub(super) enum DatabaseCommand {
    /// Print the GRANT statements for a role with which `serve` works, and with no right that it does
    /// not need. Connects to no database.
    Grants(Grants),
}

#[derive(Debug, Args)]
pub(super) struct Grants {
    /// The role of the service.
    #[arg(long, value_name = "NAME")]
    role: String,
    /// The schema of the tables.
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
}

impl DatabaseCommand {
    pub(super) fn run(self) -> Result<(), CliError> {
        let DatabaseCommand::Grants(Grants { role, schema }) = self;
        let mut out = std::io::stdout();
        for statement in grants::statements(&schema, &role) {
            writeln!(out, "{statement};")?;
        }
        Ok(())
    }
}
