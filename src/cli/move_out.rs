//! `bridgebook database move-out`: copies the private PostgreSQL into an external one.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::{
    CliError,
    copy::{self as copies, CopyError, interruptible, private},
};
use crate::{
    config::{ConfigErrors, DatabaseSettings},
    db::{
        DatabaseAddress,
        address::Environment,
        copy::{self, Table, TableRows, compare, rows_of, total},
    },
    embedded::{Embedded, Endpoint, Exclusive, Programs},
    util::error_chain::error_chain,
};

/// The oldest client programs that know `sslrootcert=system`.
const KNOWS_SYSTEM_ROOTS: u32 = 16;

#[derive(Debug, Args)]
pub(super) struct MoveOut {
    /// The empty database to copy into, as in --database-url: postgres://user@host:5432/name. Keep the
    /// password in PGPASSWORD or ~/.pgpass, because other users can see arguments.
    #[arg(value_name = "URL")]
    url: SecretString,
    #[command(flatten)]
    database: DatabaseSettings,
}

impl MoveOut {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let instead = "copy that one with pg_dump and pg_restore";
        let data_dir = private(self.database, "move-out", instead)?;
        let target = target(&self.url)?;
        let exclusive = copies::lock(&data_dir).await?;
        let programs = Programs::of_cluster(&data_dir)?;
        if target.uses_system_roots() && programs.major() < KNOWS_SYSTEM_ROOTS {
            return Err(CopyError::SystemRoots(programs.major()).into());
        }
        let embedded = exclusive.start().await?;
        let moved = interruptible(move_to(&target, &embedded, &programs, &exclusive)).await;
        let stopped = embedded.stop().await;
        let (original, copied, marker) = moved.map_err(|error| match error {
            CliError::Copy(CopyError::Interrupted) => {
                CopyError::MoveInterrupted(target.to_string()).into()
            }
            error => error,
        })?;
        if let Err(error) = stopped {
            let error = error_chain(&error);
            tracing::warn!(error, "the private PostgreSQL did not stop in order");
        }
        let mut out = io::stdout();
        print(&mut out, &original, &copied)?;
        writeln!(
            out,
            "moved {} rows in {} tables to {target}",
            total(&original),
            original.len()
        )?;
        writeln!(
            out,
            "start the service with DATABASE_URL={}, with the password as before",
            quoted(&target.without_password())
        )?;
        let marker = marker.display();
        Ok(writeln!(
            out,
            "the private database is kept, but not served any more: {marker} says so"
        )?)
    }
}

fn target(url: &SecretString) -> Result<DatabaseAddress, CliError> {
    let environment = Environment::of_process();
    DatabaseAddress::parse(url.expose_secret(), &environment).map_err(|errors| {
        let errors = errors.0.into_iter();
        let errors: Vec<_> = errors.map(|error| format!("URL: {error}")).collect();
        ConfigErrors::from(errors).into()
    })
}

/// Quotes a text for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Copies all tables, and records the move if the copy is complete. Returns the rows of both, and the
/// path of the record.
async fn move_to(
    target: &DatabaseAddress,
    embedded: &Embedded,
    programs: &Programs,
    exclusive: &Exclusive,
) -> Result<(Vec<TableRows>, Vec<TableRows>, PathBuf), CliError> {
    let address = embedded.database_url().parse()?;
    copy::check_migrations(&address).await?;
    let tables = copy::tables(&address).await?;
    copy::check_target(target, &tables, programs.major()).await?;
    let endpoint = Endpoint::external(target.libpq_variables(), target.libpq_tcp())?;
    let copied = programs.copy(&embedded.endpoint(), &endpoint).await;
    copied.map_err(|source| CopyError::NotCopied {
        target: target.to_string(),
        source,
    })?;
    let completed = complete(&address, target, &tables).await;
    let (original, copied) = completed.map_err(|source| CopyError::Incomplete {
        target: target.to_string(),
        source,
    })?;
    let marker = exclusive.record_move(&target.to_string())?;
    Ok((original, copied, marker))
}

/// Checks the copy, and makes it ready. Returns the rows of both databases.
async fn complete(
    private: &DatabaseAddress,
    target: &DatabaseAddress,
    tables: &[Table],
) -> Result<(Vec<TableRows>, Vec<TableRows>), copy::CopyError> {
    let copied = copy::count_rows(target, tables).await?;
    // After the copy, so that rows that a person adds meanwhile are noticed.
    let original = copy::count_rows(private, tables).await?;
    compare(&original, &copied)?;
    copy::finish(target, tables).await?;
    Ok((original, copied))
}

/// Prints the rows of each table in both databases.
fn print(out: &mut impl Write, original: &[TableRows], copied: &[TableRows]) -> io::Result<()> {
    let names = original.iter().map(|it| it.table.to_string().len());
    let width = names.max().unwrap_or_default();
    writeln!(out, "{:width$}  {:>12}  {:>12}", "table", "private", "copy")?;
    for TableRows { table, rows } in original {
        let copy = rows_of(copied, table);
        writeln!(out, "{table:width$}  {rows:>12}  {copy:>12}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_for_a_shell_is_one_word() {
        assert_eq!(
            quoted("user='a $b' host=db1"),
            r"'user='\''a $b'\'' host=db1'"
        );
    }
}
