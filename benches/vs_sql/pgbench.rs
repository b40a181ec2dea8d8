//! The peer: pgbench, with the best single statement for the same rows.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use crate::{
    Result,
    measured::Measured,
    options::Window,
    stage::{self, Stage},
};

/// With how many connections it is tried, so that nobody can say it
/// was held back.
pub const CONNECTIONS: &[usize] = &[1, 8, 16, 32, 64];

const MICROS_PER_SECOND: u64 = 1_000_000;

/// pgbench, and where it connects to.
pub struct Pgbench {
    program: PathBuf,
    socket_dir: PathBuf,
    port: u16,
    user: &'static str,
    logs: PathBuf,
}

impl Pgbench {
    /// Finds the program beside the server, else on the PATH.
    pub async fn find(stage: &Stage) -> Result<Self> {
        let postgres = &stage.postgres;
        let logs = stage.path("logs");
        fs::create_dir_all(&logs)?;
        let beside = postgres.bin_dir().join("pgbench");
        let program = if beside.is_file() {
            beside
        } else {
            PathBuf::from("pgbench")
        };
        Command::new(&program).arg("--version").output().await.map_err(|error| {
            format!(
                "there is no pgbench in {} or on the PATH ({error}); on Debian and Ubuntu it is in \
                 the package postgresql-contrib or postgresql-15",
                postgres.bin_dir().display()
            )
        })?;
        Ok(Pgbench {
            program,
            socket_dir: postgres.socket_dir().to_owned(),
            port: postgres.port(),
            user: postgres.user(),
            logs,
        })
    }

    /// Measures a script, each of whose transactions is worth `rows`.
    pub async fn measure(
        &self,
        script: &str,
        variables: &[(&str, u64)],
        connections: usize,
        rows: u32,
        window: Window,
    ) -> Result<Measured> {
        let output = self
            .command(script, variables, connections, window)
            .output()
            .await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("pgbench failed on {script}: {said}").into());
        }
        let ended = self.take_log()?;
        Measured::new(counted(&ended, window), rows, window)
            .ok_or_else(|| format!("{script}: no transaction ended in time").into())
    }

    fn command(
        &self,
        script: &str,
        variables: &[(&str, u64)],
        connections: usize,
        window: Window,
    ) -> Command {
        // It has threads only for the sake of its own work; it needs no more
        // than there are cores in a small machine.
        let threads = connections.min(2);
        let mut command = Command::new(&self.program);
        // PGOPTIONS, PGSSLMODE and their kin are meant for other servers.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.args(["-n", "-M", "prepared", "-l"]);
        command.arg("-f").arg(scripts().join(script));
        command.arg("--log-prefix").arg(self.logs.join("log"));
        command.args(["-c", &connections.to_string(), "-j", &threads.to_string()]);
        command.args([
            "-T",
            &(window.warm_up + window.counted).as_secs().to_string(),
        ]);
        command.args(["-D", &format!("clients={connections}")]);
        for (name, value) in variables {
            command.args(["-D", &format!("{name}={value}")]);
        }
        command
            .arg("-h")
            .arg(&self.socket_dir)
            .args(["-p", &self.port.to_string()]);
        command.args(["-U", self.user, stage::DIRECT]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Reads and removes the logs of the last run, one of each thread.
    fn take_log(&self) -> Result<Vec<Transaction>> {
        let mut transactions = Vec::new();
        for entry in fs::read_dir(&self.logs)? {
            let path = entry?.path();
            let log = fs::read_to_string(&path)?;
            transactions.extend(log.lines().filter_map(Transaction::parse));
            fs::remove_file(&path)?;
        }
        Ok(transactions)
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/vs_sql")
}

/// A line of the log.
#[derive(Debug, Clone, Copy)]
struct Transaction {
    /// In microseconds of the epoch.
    ended: u64,
    took: Duration,
}

impl Transaction {
    /// Reads `client_id transaction_no time script_no time_epoch time_us`, where
    /// the first time is how long it took and the last two are when it ended.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ').map(str::parse::<u64>);
        let took = fields.nth(2)?.ok()?;
        let (seconds, micros) = (fields.nth(1)?.ok()?, fields.next()?.ok()?);
        Some(Transaction {
            ended: seconds * MICROS_PER_SECOND + micros,
            took: Duration::from_micros(took),
        })
    }
}

/// How long those took that ended in the time that counts. It begins with the
/// first transaction: making the connections does not count.
fn counted(transactions: &[Transaction], window: Window) -> Vec<Duration> {
    let begin = transactions
        .iter()
        .map(|transaction| transaction.ended)
        .min()
        .unwrap_or(0);
    let from = begin + u64::try_from(window.warm_up.as_micros()).unwrap_or(u64::MAX);
    let until = from + u64::try_from(window.counted.as_micros()).unwrap_or(u64::MAX);
    let ended_in_time = transactions
        .iter()
        .filter(|it| it.ended >= from && it.ended < until);
    ended_in_time.map(|transaction| transaction.took).collect()
}
