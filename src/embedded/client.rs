//! The client programs `pg_dump` and `pg_restore`, which copy a database as a stream in PostgreSQL's
//! custom format.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::account::{Account, last_lines};
use super::client_output::{PG_DUMP, PG_RESTORE, read};
use super::error::EmbeddedError;
use super::find::{self, Installation};
use super::socket::{self, DATABASE, USER};
use super::{Embedded, cluster};
use crate::util::progress::Progress;

/// Options of `pg_dump`: one line of output for each table, and an error instead of a prompt.
const DUMP: [&str; 3] = ["--format=custom", "--verbose", "--no-password"];

/// Options of `pg_restore`. The variables of the [`Endpoint`] name the database. Roles of the source may
/// be missing in the target, so owners and grants are not restored. So may tablespaces.
const RESTORE: [&str; 8] = [
    "--single-transaction",
    "--no-owner",
    "--no-privileges",
    "--no-tablespaces",
    "--no-publications",
    "--no-subscriptions",
    "--verbose",
    "--no-password",
];

/// A database that the client programs connect to. Has no `Debug`, because it may contain a password.
pub struct Endpoint {
    account: Account,
    directory: PathBuf,
    /// Variables of libpq. Other users cannot read them, unlike arguments.
    variables: Vec<(&'static str, OsString)>,
    /// Further pairs of words and values of libpq, without secrets.
    words: String,
}

impl Endpoint {
    /// Returns the private database of a data directory, whose server runs.
    ///
    /// # Errors
    /// If the data directory cannot be found.
    pub fn private(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let data_dir = data_dir
            .canonicalize()
            .map_err(EmbeddedError::io("find", data_dir))?;
        let account = Account::choose(&cluster::path(&data_dir))?;
        Ok(Self::local(
            account,
            &socket::choose(&data_dir),
            socket::PORT,
        ))
    }

    /// Returns a database that libpq finds by these variables and pairs of words and values. Files that they name belong to the
    /// caller, so the programs run as the caller.
    ///
    /// # Errors
    /// If the working directory or the user of this process is unknown.
    pub fn external(
        variables: Vec<(&'static str, String)>,
        words: String,
    ) -> Result<Self, EmbeddedError> {
        let variables = variables.into_iter();
        Ok(Self {
            account: Account::of_process()?,
            directory: env::current_dir().map_err(EmbeddedError::io("find", Path::new(".")))?,
            variables: variables
                .map(|(name, value)| (name, value.into()))
                .collect(),
            words,
        })
    }

    fn local(account: Account, socket_dir: &Path, port: u16) -> Self {
        Self {
            account,
            directory: PathBuf::from("/"),
            variables: vec![
                ("PGHOST", socket_dir.into()),
                ("PGPORT", port.to_string().into()),
                ("PGUSER", USER.into()),
                ("PGDATABASE", DATABASE.into()),
            ],
            words: String::new(),
        }
    }

    /// Builds a command that connects to the database.
    fn command(&self, program: &Path) -> Command {
        let mut command = self.account.command(program);
        command
            .current_dir(&self.directory)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        Command::from(command)
    }
}

impl Embedded {
    /// Returns the database, for the client programs.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        let plan = &self.plan;
        Endpoint::local(plan.account.clone(), &plan.socket_dir, plan.port)
    }
}

/// The client programs of an installation.
#[derive(Debug)]
pub struct Programs(Installation);

impl Programs {
    /// Returns those of the version that runs the cluster of a data directory.
    ///
    /// # Errors
    /// [`EmbeddedError::NoInstallation`] and [`EmbeddedError::NoClientProgram`].
    pub fn of_cluster(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let major = cluster::major(&cluster::path(data_dir))?;
        Self::of(find::find(None, data_dir, major)?)
    }

    pub(super) fn of(installation: Installation) -> Result<Self, EmbeddedError> {
        for program in [PG_DUMP, PG_RESTORE] {
            if !installation.bin_dir.join(program).is_file() {
                return Err(EmbeddedError::NoClientProgram {
                    bin_dir: installation.bin_dir,
                    major: installation.major,
                    program,
                });
            }
        }
        Ok(Self(installation))
    }

    /// Returns their major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.0.major
    }

    /// Returns their version, for example `15.18`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// Dumps a database into a file, whose path is for errors.
    ///
    /// # Errors
    /// [`EmbeddedError::Program`] if `pg_dump` fails, [`EmbeddedError::Io`] if the file cannot be written.
    pub async fn dump(
        &self,
        from: &Endpoint,
        into: File,
        path: &Path,
    ) -> Result<(), EmbeddedError> {
        let mut command = from.command(&self.path(PG_DUMP));
        // A pipe, because pg_dump 18 appends a second table of contents to a file.
        command.args(DUMP).stdout(Stdio::piped());
        let mut dump = Run::spawn(command)?;
        let stdout = dump.child.stdout.take();
        let progress = Progress::new("backing up");
        let (dumped, written) = tokio::join!(dump.end(Some(&progress)), write(stdout, into));
        // pg_dump fails, too, if its output is not read.
        written.map_err(EmbeddedError::io("write", path))?;
        dumped
    }

    /// Restores the schema `public` of a dump into an empty database, in one transaction.
    ///
    /// # Errors
    /// [`EmbeddedError::Program`] if `pg_restore` fails. The database is then as it was.
    pub async fn restore(&self, from: File, into: &Endpoint) -> Result<(), EmbeddedError> {
        let mut command = self.restore_command(into);
        // Others are not ours: extensions and schemas of a managed PostgreSQL.
        command.arg("--schema=public").stdin(from);
        let progress = Progress::new("restoring");
        Run::spawn(command)?.end(Some(&progress)).await
    }

    /// Copies a database into an empty one, in one transaction.
    ///
    /// # Errors
    /// [`EmbeddedError::Program`] if a program fails.
    pub async fn copy(&self, from: &Endpoint, to: &Endpoint) -> Result<(), EmbeddedError> {
        let mut dump = from.command(&self.path(PG_DUMP));
        dump.args(DUMP).arg("--compress=0").stdout(Stdio::piped());
        let mut dump = Run::spawn(dump)?;
        let pipe = dump.child.stdout.take().map(TryInto::<Stdio>::try_into);
        let pipe = pipe.transpose();
        let pipe = pipe.map_err(EmbeddedError::io("read the output of", &dump.program))?;
        let mut restore = self.restore_command(to);
        restore.stdin(pipe.unwrap_or_else(Stdio::null));
        let restore = Run::spawn(restore)?;
        let progress = Progress::new("copying");
        let (dumped, restored) = tokio::join!(dump.end(None), restore.end(Some(&progress)));
        match dumped {
            // The end of the one that has failed first ends the other, too.
            Err(error) if !error.is_closed_pipe() => Err(error),
            _ => restored,
        }
    }

    fn restore_command(&self, into: &Endpoint) -> Command {
        let mut command = into.command(&self.path(PG_RESTORE));
        command
            .args(RESTORE)
            .arg(format!("--dbname={}", into.words));
        command
    }

    pub(super) fn installation(&self) -> &Installation {
        &self.0
    }

    fn path(&self, program: &str) -> PathBuf {
        self.0.bin_dir.join(program)
    }
}

/// Writes the output of a program into a file.
async fn write(from: Option<ChildStdout>, into: File) -> io::Result<()> {
    /// Each write takes a thread for a moment.
    const BYTES: usize = 256 * 1024;
    let Some(from) = from else { return Ok(()) };
    let mut into = tokio::fs::File::from_std(into);
    tokio::io::copy_buf(&mut BufReader::with_capacity(BYTES, from), &mut into).await?;
    into.flush().await
}

/// A running program. Dropping it kills the program.
struct Run {
    child: Child,
    program: PathBuf,
}

impl Run {
    fn spawn(mut command: Command) -> Result<Self, EmbeddedError> {
        let program = PathBuf::from(command.as_std().get_program());
        command.stderr(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C must reach only this process, which ends the program and says so.
        command.process_group(0);
        let child = command.spawn();
        let child = child.map_err(EmbeddedError::io("run", &program))?;
        Ok(Self { child, program })
    }

    /// Waits for the end, and shows which tables are done meanwhile.
    async fn end(mut self, progress: Option<&Progress>) -> Result<(), EmbeddedError> {
        let failed = |error| EmbeddedError::io("run", &self.program)(error);
        let output = match self.child.stderr.take() {
            Some(stderr) => read(BufReader::new(stderr), progress).await,
            None => Ok(String::new()),
        };
        let output = output.map_err(failed)?;
        let status = self.child.wait().await.map_err(failed)?;
        match status.success() {
            true => {
                for line in output.lines() {
                    tracing::warn!("{line}");
                }
                Ok(())
            }
            false => Err(EmbeddedError::Program {
                program: self.program,
                status,
                output: last_lines(&output),
            }),
        }
    }
}
