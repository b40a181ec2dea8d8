//! Runs the peer: pgbench, with the best single statement for the same rows.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use crate::{
    Result,
    measured::{Measured, Window},
    stage::{self, Stage},
};

/// The numbers of connections that pgbench is tried with. The best one counts, so that
/// pgbench is not held back.
pub const CONNECTIONS: &[usize] = &[1, 8, 16, 32, 64];

const MICROS_PER_SECOND: u64 = 1_000_000;

/// pgbench, and the server that it connects to.
pub struct Pgbench {
    program: PathBuf,
    socket_dir: PathBuf,
    port: u16,
    user: &'static str,
    logs: PathBuf,
}

impl Pgbench {
    /// Finds the program next to the server's, or on the PATH.
    pub async fn find(stage: &Stage) -> Result<Self> {
        let postgres = &stage.postgres;
        let logs = stage.path("logs");
        fs::create_dir_all(&logs)?;
        let installed = postgres.bin_dir().join("pgbench");
        let program = if installed.is_file() {
            installed
        } else {
            PathBuf::from("pgbench")
        };
        Command::new(&program).arg("--version").output().await.map_err(|error| {
            format!(
                "pgbench not found in {} or on the PATH ({error}); on Debian and Ubuntu, install \
                 the package postgresql-15 or postgresql-contrib",
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

    /// Measures a script. Each of its transactions counts as `rows` rows.
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
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(format!("pgbench failed on {script}: {stderr}").into());
        }
        let ended = self.take_log()?;
        Measured::new(counted(&ended, window), rows, window)
            .ok_or_else(|| format!("{script}: no transaction completed within the window").into())
    }

    fn command(
        &self,
        script: &str,
        variables: &[(&str, u64)],
        connections: usize,
        window: Window,
    ) -> Command {
        // Two threads suffice for pgbench's own work. More would take cores from the server.
        let threads = connections.min(2);
        let mut command = Command::new(&self.program);
        // PGOPTIONS, PGSSLMODE and similar variables are meant for other servers.
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

    /// Reads and removes the logs of the last run, one per thread.
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

/// A line of the log: one transaction.
#[derive(Debug, Clone, Copy)]
struct Transaction {
    /// When it ended, in microseconds since the epoch.
    ended: u64,
    latency: Duration,
}

impl Transaction {
    /// Parses `client_id transaction_no time script_no time_epoch time_us`. `time` is the
    /// latency; the last two fields are the end time.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ').map(str::parse::<u64>);
        let latency = fields.nth(2)?.ok()?;
        let (seconds, micros) = (fields.nth(1)?.ok()?, fields.next()?.ok()?);
        Some(Transaction {
            ended: seconds * MICROS_PER_SECOND + micros,
            latency: Duration::from_micros(latency),
        })
    }
}

/// Returns the latencies of the transactions that ended within the window. The window starts
/// at the first transaction, so opening the connections does not count.
fn counted(transactions: &[Transaction], window: Window) -> Vec<Duration> {
    let begin = transactions
        .iter()
        .map(|transaction| transaction.ended)
        .min()
        .unwrap_or(0);
    let from = begin + u64::try_from(window.warm_up.as_micros()).unwrap_or(u64::MAX);
    let until = from + u64::try_from(window.counted.as_micros()).unwrap_or(u64::MAX);
    let within_window = transactions
        .iter()
        .filter(|it| it.ended >= from && it.ended < until);
    within_window
        .map(|transaction| transaction.latency)
        .collect()
}
