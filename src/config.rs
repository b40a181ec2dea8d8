//! The settings of `bridgebook serve`. Every flag has an environment variable.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, builder::BoolishValueParser};

/// The settings as they are given: text, so that everything that is wrong with
/// them can be said at once.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Where to listen for gRPC. There is no authentication yet: whoever can
    /// connect can read and write everything.
    #[arg(
        long,
        env = "BRIDGEBOOK_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:50051"
    )]
    listen: String,

    #[command(flatten)]
    database: DatabaseSettings,

    /// Bring the schema up to date first. The embedded database always is.
    #[arg(
        long,
        env = "BRIDGEBOOK_MIGRATE",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false"
    )]
    migrate: bool,

    /// How many connections to the database to use at most.
    #[arg(
        long,
        env = "BRIDGEBOOK_DATABASE_CONNECTIONS",
        value_name = "N",
        default_value = "16"
    )]
    database_connections: String,

    /// How long a call may take at most, in seconds, whatever deadline it brings.
    #[arg(
        long,
        env = "BRIDGEBOOK_CALL_TIMEOUT",
        value_name = "SECONDS",
        default_value = "30"
    )]
    call_timeout: String,

    /// How long calls that are under way may take to end when the service stops, in seconds.
    #[arg(
        long,
        env = "BRIDGEBOOK_DRAIN_TIMEOUT",
        value_name = "SECONDS",
        default_value = "10"
    )]
    drain_timeout: String,

    /// How often to look for nodes that are silent for longer than their TTL, in seconds.
    #[arg(
        long,
        env = "BRIDGEBOOK_SWEEP_INTERVAL",
        value_name = "SECONDS",
        default_value = "5"
    )]
    sweep_interval: String,
}

/// Which database to use.
#[derive(Debug, Clone, Args)]
pub struct DatabaseSettings {
    /// The PostgreSQL to use, 14 or newer: postgres://user:password@host:5432/name.
    /// Without it, a private one is created and run in the data directory.
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        global = true
    )]
    database_url: Option<String>,

    /// Where the private PostgreSQL lives. Default: /var/lib/bridgebook for
    /// root, else bridgebook in the user's data directory.
    #[arg(long, env = "BRIDGEBOOK_DATA_DIR", value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseSource {
    /// Somewhere else.
    Url(String),
    /// In a private cluster in this directory.
    Embedded(PathBuf),
}

/// The settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the database is.
    pub database: DatabaseSource,
    /// Whether to bring the schema up to date.
    pub migrate: bool,
    /// How many connections to the database to use at most.
    pub database_connections: u32,
    /// How long a call may take at most.
    pub call_timeout: Duration,
    /// How long a drain may take at most.
    pub drain_timeout: Duration,
    /// How often to look for nodes that are silent.
    pub sweep_interval: Duration,
}

/// The fewest connections: one for batches, one for queries.
const MIN_CONNECTIONS: u32 = 2;
/// The most: beyond a few per core of the database they only get in each other's way.
const MAX_CONNECTIONS: u32 = 1000;
/// The longest timeout, in seconds: a day.
const MAX_SECONDS: u64 = 86_400;

impl Settings {
    /// Checks the settings.
    ///
    /// # Errors
    /// Everything that is wrong with them, a line each.
    pub fn check(self) -> Result<Config, Vec<String>> {
        let mut faults = Vec::new();
        let connections = MIN_CONNECTIONS.into()..=MAX_CONNECTIONS.into();
        let config = Config {
            // The README says localhost too.
            listen: self
                .listen
                .replace("localhost:", "127.0.0.1:")
                .parse()
                .unwrap_or_else(|_| {
                    faults.push(format!(
                        "--listen: {:?} is no address with a port, like 127.0.0.1:50051",
                        self.listen
                    ));
                    SocketAddr::from(([127, 0, 0, 1], 0))
                }),
            migrate: self.migrate,
            database_connections: number(
                &mut faults,
                "--database-connections",
                &self.database_connections,
                connections,
            )
            .try_into()
            .unwrap_or(MAX_CONNECTIONS),
            call_timeout: seconds(&mut faults, "--call-timeout", &self.call_timeout),
            drain_timeout: seconds(&mut faults, "--drain-timeout", &self.drain_timeout),
            sweep_interval: seconds(&mut faults, "--sweep-interval", &self.sweep_interval),
            database: self.database.check().unwrap_or_else(|fault| {
                faults.extend(fault);
                DatabaseSource::Url(String::new())
            }),
        };
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(faults)
        }
    }
}

impl DatabaseSettings {
    /// Checks the settings.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(self) -> Result<DatabaseSource, Vec<String>> {
        // Set but empty is how some files say "not set".
        let database_url = self.database_url.filter(|url| !url.is_empty());
        match (database_url, self.data_dir) {
            (Some(url), None) if is_database_url(&url) => Ok(DatabaseSource::Url(url)),
            // Not shown: it may hold a password.
            (Some(_), None) => Err(vec![
                "--database-url: must be like postgres://user:password@host:5432/name".to_owned(),
            ]),
            (Some(_), Some(_)) => Err(vec![
                "--database-url and --data-dir exclude each other: one names a PostgreSQL that \
                 runs elsewhere, the other the directory of a private one"
                    .to_owned(),
            ]),
            (None, Some(data_dir)) => Ok(DatabaseSource::Embedded(data_dir)),
            (None, None) => crate::embedded::default_data_dir()
                .map(DatabaseSource::Embedded)
                .map_err(|error| vec![format!("--data-dir: {error}")]),
        }
    }
}

fn is_database_url(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn seconds(faults: &mut Vec<String>, flag: &str, text: &str) -> Duration {
    Duration::from_secs(number(faults, flag, text, 1..=MAX_SECONDS))
}

fn number(
    faults: &mut Vec<String>,
    flag: &str,
    text: &str,
    range: std::ops::RangeInclusive<u64>,
) -> u64 {
    match text.parse() {
        Ok(number) if range.contains(&number) => number,
        _ => {
            let (least, most) = range.into_inner();
            faults.push(format!(
                "{flag}: {text:?} is no number from {least} to {most}"
            ));
            least
        }
    }
}
