//! The service and its PostgreSQL, and the ways to both.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{ExitCode, Stdio},
    time::Duration,
};

use bridgebook::{
    cli::Cli,
    client::probe::probe,
    embedded::{Embedded, Settings},
    ops::telemetry::Telemetry,
};
use clap::Parser;
use tokio::process::{Child, Command};

use crate::{
    Result,
    proxy::{Proxy, Target},
};

/// How long the service may take to serve, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the service, as the program `bridgebook` does.
pub async fn serve() -> ExitCode {
    let cli = Cli::parse();
    let telemetry = match Telemetry::start(cli.log()) {
        Ok(telemetry) => telemetry,
        Err(fault) => {
            eprintln!("{fault}");
            return ExitCode::FAILURE;
        }
    };
    match cli.run(&telemetry).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", bridgebook::util::error_chain::error_chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Everything that can be killed.
pub struct World {
    /// Between the callers and the service.
    pub front: Proxy,
    /// Between the service and PostgreSQL.
    pub back: Proxy,
    service: Child,
    address: SocketAddr,
    // None only while it is started again.
    postgres: Option<Embedded>,
    directory: Directory,
}

/// A directory that goes when it is dropped.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl World {
    /// Starts all of it, and waits until it serves.
    pub async fn start() -> Result<Self> {
        let name = format!("bridgebook-chaos-{}", std::process::id());
        let directory = Directory(std::env::temp_dir().join(name));
        let postgres = Embedded::start(Settings::new(&directory.0)).await?;
        let socket = postgres
            .socket_dir()
            .join(format!(".s.PGSQL.{}", postgres.port()));
        let back = Proxy::to(Target::Socket(socket)).await?;
        // Free a moment ago: nobody else here takes ports at this rate.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let front = Proxy::to(Target::Address(address)).await?;
        let service = spawn(address, &back_url(&postgres, &back))?;
        let world = World {
            front,
            back,
            service,
            address,
            postgres: Some(postgres),
            directory,
        };
        world.serves().await?;
        Ok(world)
    }

    /// The URL of the database, past the proxy.
    pub fn database_url(&self) -> String {
        let postgres = self.postgres.as_ref();
        postgres.map_or_else(String::new, Embedded::database_url)
    }

    /// Kills the service, and starts it again.
    pub async fn kill_service(&mut self) -> Result<()> {
        self.service.kill().await?;
        if let Some(postgres) = &self.postgres {
            self.service = spawn(self.address, &back_url(postgres, &self.back))?;
        }
        Ok(())
    }

    /// Kills PostgreSQL, and starts it again.
    pub async fn kill_postgres(&mut self) -> Result<()> {
        let Some(mut postgres) = self.postgres.take() else {
            return Ok(());
        };
        signal("KILL", postgres.pid()).await?;
        // Says how it ended, which is what we came for.
        let _ = postgres.crashed().await;
        drop(postgres);
        self.postgres = Some(Embedded::start(Settings::new(&self.directory.0)).await?);
        Ok(())
    }

    /// Waits until the service serves.
    pub async fn serves(&self) -> Result<()> {
        let address = self.address.to_string();
        let probes = async {
            while probe(&address, None).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        Ok(tokio::time::timeout(PATIENCE, probes).await?)
    }

    /// Stops all of it, as a supervisor would.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.service.id() {
            signal("TERM", pid).await?;
        }
        let status = tokio::time::timeout(PATIENCE, self.service.wait()).await??;
        if !status.success() {
            return Err(format!("the service did not stop well: {status}").into());
        }
        if let Some(postgres) = self.postgres.take() {
            postgres.stop().await?;
        }
        Ok(())
    }
}

fn back_url(postgres: &Embedded, back: &Proxy) -> String {
    let (user, database) = (postgres.user(), postgres.database());
    format!("postgres://{user}@{}/{database}", back.address)
}

fn spawn(address: SocketAddr, database_url: &str) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    for (name, _) in std::env::vars_os() {
        if name == "DATABASE_URL" || name.as_encoded_bytes().starts_with(b"BRIDGEBOOK_") {
            command.env_remove(name);
        }
    }
    let child = command
        .args(["serve", "--migrate", "--listen", &address.to_string()])
        .args(["--database-url", database_url])
        // Only what is its own fault belongs between our lines.
        .args(["--log", "off,bridgebook::call=error"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

async fn signal(name: &str, pid: u32) -> Result<()> {
    let arguments = [format!("-{name}"), pid.to_string()];
    let status = Command::new("kill").args(arguments).status().await?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("kill -{name} {pid} failed").into()),
    }
}
