//! Starts and kills the service and its PostgreSQL, with a proxy in front of each.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use bridgebook::{
    cli::Cli,
    client::probe::probe,
    embedded::{Embedded, Settings},
    ops::telemetry::Telemetry,
};
use clap::Parser;

use crate::{
    Error, Result,
    proxy::{Proxy, Target},
    service::{Service, signal},
};

/// How long the service may take until it is SERVING.
const START_TIMEOUT: Duration = Duration::from_secs(60);

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

/// The service, its PostgreSQL and the proxies.
pub struct Environment {
    /// The proxy between the callers and the service.
    pub front: Proxy,
    /// The proxy between the service and PostgreSQL.
    pub back: Proxy,
    service: Service,
    address: SocketAddr,
    // None only while PostgreSQL restarts.
    postgres: Option<Embedded>,
    directory: Directory,
}

/// A directory that is removed when the value is dropped.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Environment {
    /// Starts everything and waits until the service is SERVING.
    pub async fn start() -> Result<Self> {
        let name = format!("bridgebook-chaos-{}", std::process::id());
        let directory = Directory(std::env::temp_dir().join(name));
        let postgres = Embedded::start(Settings::new(&directory.0)).await?;
        let socket = postgres
            .socket_dir()
            .join(format!(".s.PGSQL.{}", postgres.port()));
        let back = Proxy::to(Target::Socket(socket)).await?;
        // The port was free a moment ago, and nothing else here takes ports so fast.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let front = Proxy::to(Target::Address(address)).await?;
        let service = Service::start(address, &back_url(&postgres, &back))?;
        let mut environment = Environment {
            front,
            back,
            service,
            address,
            postgres: Some(postgres),
            directory,
        };
        environment.wait_until_serving().await?;
        Ok(environment)
    }

    /// Returns the URL of the database that bypasses the proxy.
    pub fn database_url(&self) -> String {
        let postgres = self.postgres.as_ref();
        postgres.map_or_else(String::new, Embedded::database_url)
    }

    /// Fails if the service has exited without being killed.
    pub async fn require_service(&mut self) -> Result<()> {
        self.service.require_running().await
    }

    /// Waits until the service exits without being killed and returns the error.
    pub async fn unexpected_exit(&mut self) -> Error {
        self.service.unexpected().await
    }

    /// Kills the service and starts it again.
    pub async fn kill_service(&mut self) -> Result<()> {
        self.service.kill().await?;
        if let Some(postgres) = &self.postgres {
            self.service = Service::start(self.address, &back_url(postgres, &self.back))?;
        }
        Ok(())
    }

    /// Kills PostgreSQL and starts it again.
    pub async fn kill_postgres(&mut self) -> Result<()> {
        let Some(mut postgres) = self.postgres.take() else {
            return Ok(());
        };
        signal("KILL", postgres.pid()).await?;
        // Returns the crash as an error, which is intended here.
        let _ = postgres.crashed().await;
        drop(postgres);
        self.postgres = Some(Embedded::start(Settings::new(&self.directory.0)).await?);
        Ok(())
    }

    /// Waits until the service is SERVING. Fails if it exits or takes too long.
    pub async fn wait_until_serving(&mut self) -> Result<()> {
        let address = self.address.to_string();
        let begun = Instant::now();
        while let Err(error) = probe(&address, None).await {
            self.require_service().await?;
            if begun.elapsed() > START_TIMEOUT {
                let seconds = START_TIMEOUT.as_secs();
                return Err(
                    format!("the service is not SERVING after {seconds} s: {error}").into(),
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Shuts everything down.
    pub async fn stop(mut self) -> Result<()> {
        self.service.stop().await?;
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
