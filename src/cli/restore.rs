//! `bridgebook database restore`: restores a dump into a private PostgreSQL without rows.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser},
};

use super::{
    CliError,
    copy::{CopyError, interruptible, private, replace},
};
use crate::{
    config::DatabaseSettings,
    db::{
        DatabaseAddress,
        copy::{self, TableRows, total},
    },
    embedded::{Exclusive, Replaced},
};

/// The first bytes of a dump in the custom format.
const MAGIC: &[u8; 5] = b"PGDMP";

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The file of `database backup` or `pg_dump -Fc`. The schema public is restored, without owners
    /// and grants.
    #[arg(value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    file: PathBuf,
    #[command(flatten)]
    database: DatabaseSettings,
}

impl Restore {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let instead = "restore into that one with `pg_restore`";
        let data_dir = private(self.database, "restore", instead)?;
        let dump = open(&self.file)?;
        let exclusive = Exclusive::acquire(&data_dir).await?;
        require_empty(&exclusive, &data_dir).await?;
        let new = interruptible(async { Ok(exclusive.create().await?) }).await?;
        let fill = replace(new, Replaced::Removed, async |new| {
            let restored = new.programs().restore(dump, &new.endpoint()).await;
            restored.map_err(|source| CopyError::NotRestored {
                path: self.file.clone(),
                source,
            })?;
            let address: DatabaseAddress = new.database_url().parse()?;
            copy::check_migrations(&address).await?;
            let tables = copy::tables(&address).await?;
            copy::finish(&address, &tables).await?;
            Ok(copy::count_rows(&address, &tables).await?)
        });
        let (tables, _) = fill.await?;
        Ok(writeln!(
            io::stdout(),
            "restored {} into {}: {} rows in {} tables",
            self.file.display(),
            data_dir.display(),
            total(&tables),
            tables.len()
        )?)
    }
}

/// Opens a dump, and checks that it is in the custom format.
fn open(path: &Path) -> Result<File, CopyError> {
    let file = File::open(path).map_err(CopyError::file("open", path))?;
    let mut begin = [0; MAGIC.len()];
    // Does not move the position, from which pg_restore reads.
    match file.read_exact_at(&mut begin, 0) {
        Ok(()) if begin == *MAGIC => Ok(file),
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            Err(CopyError::file("read", path)(error))
        }
        _ => Err(CopyError::NotADump(path.to_owned())),
    }
}

/// Fails if the data directory has a database with rows.
async fn require_empty(exclusive: &Exclusive, data_dir: &Path) -> Result<(), CliError> {
    if exclusive.major()?.is_none() {
        return Ok(());
    }
    let embedded = exclusive.start().await?;
    let address: DatabaseAddress = embedded.database_url().parse()?;
    let counted = count(&address).await;
    embedded.stop().await?;
    match total(&counted?) {
        0 => Ok(()),
        rows => Err(CopyError::NotEmpty {
            data_dir: data_dir.to_owned(),
            rows,
        }
        .into()),
    }
}

async fn count(address: &DatabaseAddress) -> Result<Vec<TableRows>, copy::CopyError> {
    copy::count_rows(address, &copy::tables(address).await?).await
}
