//! `bridgebook database backup`: dumps the private PostgreSQL into a file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser},
};
use indicatif::HumanBytes;

use super::{
    CliError,
    copy::{CopyError, interruptible, private},
    database::on_database,
};
use crate::{
    config::{ConfigErrors, DatabaseSettings, DatabaseSource},
    db::{DatabaseAddress, migrations},
    embedded::{self, Endpoint, Programs},
};

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file to write, or - for the standard output. It appears when it is complete.
    #[arg(value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    file: PathBuf,
    /// Replace FILE if it exists.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    database: DatabaseSettings,
}

impl Backup {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let data_dir = private(
            self.database,
            "backup",
            "back that one up with `pg_dump -Fc`",
        )?;
        if self.file.as_os_str().is_empty() {
            let error = "FILE: expected a path, got an empty text".to_owned();
            return Err(ConfigErrors::from(vec![error]).into());
        }
        let is_output = self.file == Path::new("-");
        if is_output && io::stdout().is_terminal() {
            return Err(CopyError::Terminal.into());
        }
        if !is_output {
            check_free(&self.file, self.force)?;
        }
        embedded::require_cluster(&data_dir).map_err(CliError::NoDatabase)?;
        let work = async |address: &DatabaseAddress| {
            let programs = Programs::of_cluster(&data_dir)?;
            let database = Endpoint::private(&data_dir)?;
            interruptible(async {
                match is_output {
                    true => {
                        let dumped = programs.dump(&database, output()?, &self.file).await;
                        dumped.map_err(|error| match error.is_closed_pipe() {
                            true => io::Error::from(io::ErrorKind::BrokenPipe).into(),
                            false => error.into(),
                        })
                    }
                    false => write(&self.file, self.force, &programs, &database, address).await,
                }
            })
            .await
        };
        on_database(DatabaseSource::Embedded(data_dir.clone()), work).await
    }
}

/// Fails if a backup would replace a file without `--force`, or anything else than a file.
fn check_free(file: &Path, force: bool) -> Result<(), CopyError> {
    match file.symlink_metadata() {
        Ok(found) if !found.is_file() => Err(CopyError::NotAFile(file.to_owned())),
        Ok(_) if !force => Err(CopyError::Exists(file.to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CopyError::file("look for", file)(error))
        }
        _ => Ok(()),
    }
}

/// Returns a handle of the standard output.
fn output() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Writes the file, and prints what it has.
async fn write(
    file: &Path,
    force: bool,
    programs: &Programs,
    database: &Endpoint,
    address: &DatabaseAddress,
) -> Result<(), CliError> {
    let partial = Partial::create(file)?;
    // First, because the file is complete once it has its name.
    let status = migrations::status(address).await?;
    programs.dump(database, partial.handle()?, file).await?;
    let bytes = partial.complete(file, force)?;
    let mut applied = status.iter().filter(|it| it.applied_at.is_some());
    let schema = applied.next_back().map_or("none", |it| it.version.as_str());
    Ok(writeln!(
        io::stdout(),
        "wrote {}: {}, schema {schema}, PostgreSQL {}",
        file.display(),
        HumanBytes(bytes),
        programs.version()
    )?)
}

/// An unfinished file, which is removed when the value is dropped.
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    /// Creates a file beside the one that it becomes, for its owner only.
    fn create(file: &Path) -> Result<Self, CopyError> {
        // The process id is 1 in every container, so a killed backup may have left a file with it.
        let age = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut path = file.to_owned().into_os_string();
        path.push(format!(".part-{}", age.as_nanos()));
        let path = PathBuf::from(path);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options
            .open(&path)
            .map_err(CopyError::file("create", &path))?;
        Ok(Partial { path, file })
    }

    fn handle(&self) -> Result<File, CopyError> {
        let handle = self.file.try_clone();
        handle.map_err(CopyError::file("open", &self.path))
    }

    /// Gives the file its name, which survives a power failure. Returns its size.
    fn complete(self, file: &Path, force: bool) -> Result<u64, CopyError> {
        let failed = |error| CopyError::file("write", file)(error);
        self.file.sync_all().map_err(failed)?;
        self.publish(file, force)?;
        let parent = file.parent().filter(|it| !it.as_os_str().is_empty());
        let parent = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
        parent.sync_all().map_err(failed)?;
        Ok(self.file.metadata().map_err(failed)?.len())
    }

    /// Gives the file its name. Replaces another file only by force.
    fn publish(&self, file: &Path, force: bool) -> Result<(), CopyError> {
        if !force {
            // Unlike a rename, it does not replace a file that has appeared meanwhile.
            match fs::hard_link(&self.path, file) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(CopyError::Exists(file.to_owned()));
                }
                // The file system has no hard links.
                Err(_) => check_free(file, force)?,
            }
        }
        fs::rename(&self.path, file).map_err(CopyError::file("write", file))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // A complete file has another name.
        let _ = fs::remove_file(&self.path);
    }
}
