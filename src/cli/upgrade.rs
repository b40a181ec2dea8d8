//! `bridgebook database upgrade`: copies the private PostgreSQL into one of a newer version.

use std::io::{self, Write};

use clap::Args;

use super::{
    CliError,
    copy::{self as copies, interruptible, private, replace},
};
use crate::{
    config::DatabaseSettings,
    db::{
        DatabaseAddress,
        copy::{self, TableRows, compare, total},
    },
    embedded::{Embedded, EmbeddedError, Replaced, Replacement},
};

#[derive(Debug, Args)]
pub(super) struct Upgrade {
    #[command(flatten)]
    database: DatabaseSettings,
}

impl Upgrade {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let instead = "upgrade that one with pg_upgrade or as its provider says";
        let data_dir = private(self.database, "upgrade", instead)?;
        let exclusive = copies::lock(&data_dir).await?;
        let major = exclusive.major()?.ok_or_else(|| {
            CliError::NoDatabase(EmbeddedError::NoCluster {
                data_dir: data_dir.clone(),
            })
        })?;
        let mut out = io::stdout();
        let Some(newer) = exclusive.newer(major)? else {
            return Ok(writeln!(
                out,
                "nothing to upgrade: no supported version newer than PostgreSQL {major} is installed"
            )?);
        };
        let version = newer.version().to_owned();
        let old = exclusive.start().await?;
        let new = interruptible(async { Ok(exclusive.create_with(newer).await?) });
        let new = match new.await {
            Ok(new) => new,
            Err(error) => {
                old.stop().await?;
                return Err(error);
            }
        };
        let fill = replace(new, Replaced::Kept, async |new| {
            let copied = copy_all(&old, new).await;
            // It must not run when its directory is renamed.
            let stopped = old.stop().await;
            let tables = copied?;
            stopped?;
            Ok(tables)
        });
        let (tables, kept) = fill.await?;
        writeln!(
            out,
            "upgraded from PostgreSQL {major} to {version}: {} rows in {} tables",
            total(&tables),
            tables.len()
        )?;
        match kept {
            Some(kept) => Ok(writeln!(
                out,
                "the old database is kept in {}; remove it once you no longer need it",
                kept.display()
            )?),
            None => Ok(()),
        }
    }
}

/// Copies all tables, and checks the copy. Returns its rows.
async fn copy_all(old: &Embedded, new: &Replacement<'_>) -> Result<Vec<TableRows>, CliError> {
    let from: DatabaseAddress = old.database_url().parse()?;
    let to: DatabaseAddress = new.database_url().parse()?;
    let programs = new.programs();
    programs.copy(&old.endpoint(), &new.endpoint()).await?;
    let tables = copy::tables(&from).await?;
    let copied = copy::count_rows(&to, &tables).await?;
    compare(&copy::count_rows(&from, &tables).await?, &copied)?;
    copy::finish(&to, &tables).await?;
    Ok(copied)
}
