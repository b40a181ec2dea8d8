//! `bridgebook database`: what an owner of the database has to do for the service.

use std::io::Write;

use clap::{Args, Subcommand};

use super::CliError;
use crate::{config::ConfigErrors, db::grants};

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
        let empty = [("--role", &role), ("--schema", &schema)];
        let empty = empty.into_iter().filter(|(_, name)| name.is_empty());
        let errors: Vec<_> = empty
            .map(|(argument, _)| format!("{argument}: expected a name, got an empty text"))
            .collect();
        if !errors.is_empty() {
            return Err(ConfigErrors::from(errors).into());
        }
        let mut out = std::io::stdout();
        for statement in grants::statements(&schema, &role) {
            writeln!(out, "{statement};")?;
        }
        Ok(())
    }
}
