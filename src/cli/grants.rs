//! `bridgebook database grants`: prints the rights that the service needs.

use std::io::Write;

use clap::Args;

use super::CliError;
use crate::{config::ConfigErrors, db::grants};

#[derive(Debug, Args)]
pub(super) struct Grants {
    /// The role of the service.
    #[arg(long, value_name = "NAME")]
    role: String,
    /// The schema of the tables.
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
}

impl Grants {
    pub(super) fn run(self) -> Result<(), CliError> {
        let empty = [("--role", &self.role), ("--schema", &self.schema)];
        let empty = empty.into_iter().filter(|(_, name)| name.is_empty());
        let errors: Vec<_> = empty
            .map(|(argument, _)| format!("{argument}: expected a name, got an empty text"))
            .collect();
        if !errors.is_empty() {
            return Err(ConfigErrors::from(errors).into());
        }
        let mut out = std::io::stdout();
        for statement in grants::statements(&self.schema, &self.role) {
            writeln!(out, "{statement};")?;
        }
        Ok(())
    }
}
