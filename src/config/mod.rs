//! The settings of `bridgebook serve`. Every flag has an environment variable.

mod limits;
mod retention;
mod tls;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, builder::BoolishValueParser};
use tokio_postgres::config::SslMode;

pub use self::{
    limits::LimitSettings,
    retention::{PruneSettings, RetentionSettings},
    tls::{TlsConfig, TlsSettings},
};
use crate::util::net::is_loopback;
use crate::{
    ops::retention::model::RetentionDefaults, rpc::limits::Limits, util::error_chain::error_chain,
};

/// The settings as they are given: text, so that everything that is wrong with
/// them can be said at once.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Where to listen for gRPC. Elsewhere than on the loopback interface it takes
    /// tokens and TLS, or --insecure.
    #[arg(
        long,
        env = "BRIDGEBOOK_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:50051"
    )]
    listen: String,

    /// Where to answer HTTP: /metrics for Prometheus, /livez and /readyz. It asks nobody
    /// for a token, and says nothing of tenants. Default: nowhere.
    #[arg(long, env = "BRIDGEBOOK_METRICS_LISTEN", value_name = "ADDR:PORT")]
    metrics_listen: Option<String>,

    /// What callers have to show. Default: tokens, or nothing as long as only this
    /// machine can connect.
    #[arg(long, env = "BRIDGEBOOK_AUTH", value_name = "HOW")]
    auth: Option<Auth>,

    /// Listen elsewhere than on the loopback interface without tokens, without TLS,
    /// or without both: whoever can connect, or listen on the way, can read and write
    /// what callers can.
    #[arg(
        long,
        env = "BRIDGEBOOK_INSECURE",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false"
    )]
    insecure: bool,

    #[command(flatten)]
    tls: TlsSettings,

    #[command(flatten)]
    limits: LimitSettings,

    #[command(flatten)]
    retention: RetentionSettings,

    #[command(flatten)]
    prune: PruneSettings,

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

    /// From how many milliseconds on a call is slow, and logged.
    #[arg(
        long,
        env = "BRIDGEBOOK_SLOW_CALL",
        value_name = "MILLISECONDS",
        default_value = "1000"
    )]
    slow_call: String,

    /// For how long to go on serving after health has said NOT_SERVING when the service
    /// stops, in seconds: until load balancers have noticed.
    #[arg(
        long,
        env = "BRIDGEBOOK_DRAIN_PAUSE",
        value_name = "SECONDS",
        default_value = "0"
    )]
    drain_pause: String,

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

    /// For how long after the start, and after the database was away, no node is taken
    /// for silent, in seconds: until then nobody could have been heard of.
    #[arg(
        long,
        env = "BRIDGEBOOK_SWEEP_GRACE",
        value_name = "SECONDS",
        default_value = "300"
    )]
    sweep_grace: String,
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

/// What callers have to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Auth {
    /// A token, or a certificate that stands for one.
    Tokens,
    /// Nothing.
    None,
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
    /// Where to answer HTTP, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// What callers have to show.
    pub auth: Auth,
    /// Where the certificates are, if connections are to be private.
    pub tls: Option<TlsConfig>,
    /// What callers may take.
    pub limits: Limits,
    /// For how long rows are kept.
    pub retention: RetentionDefaults,
    /// How often to look for older ones.
    pub prune_interval: Duration,
    /// Whether it is known, and wanted, that others may listen in or call.
    pub insecure: bool,
    /// Where the database is.
    pub database: DatabaseSource,
    /// Whether to bring the schema up to date.
    pub migrate: bool,
    /// How many connections to the database to use at most.
    pub database_connections: u32,
    /// How long a call may take at most.
    pub call_timeout: Duration,
    /// From how long on a call is slow, and logged.
    pub slow_call: Duration,
    /// For how long to go on serving before a drain.
    pub drain_pause: Duration,
    /// How long a drain may take at most.
    pub drain_timeout: Duration,
    /// How often to look for nodes that are silent.
    pub sweep_interval: Duration,
    /// For how long nodes have to be listened to before one is taken for silent.
    pub sweep_grace: Duration,
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
        let listen = listen_address(&mut faults, "--listen", &self.listen);
        // Set but empty is how some files say "not set".
        let metrics_listen = self.metrics_listen.filter(|address| !address.is_empty());
        let metrics_listen =
            metrics_listen.map(|it| listen_address(&mut faults, "--metrics-listen", &it));
        let tls = self.tls.check(&mut faults);
        let is_open = is_loopback(listen) || self.insecure;
        let auth = self.auth.unwrap_or(match is_open && tls.is_none() {
            true => Auth::None,
            false => Auth::Tokens,
        });
        let stands_for_tokens = tls.as_ref().is_some_and(|it| it.client_tokens.is_some());
        if auth == Auth::None && stands_for_tokens {
            faults.push("--tls-client-tokens: nobody is asked for a token (--auth)".to_owned());
        }
        if !is_open && (auth == Auth::None || tls.is_none()) {
            faults.push(format!(
                "--listen: {listen} can be reached from other machines; that takes tokens and TLS \
                 (--tls-certificate and --tls-key), or --insecure"
            ));
        }
        let config = Config {
            listen,
            metrics_listen,
            auth,
            tls,
            limits: self.limits.check(&mut faults),
            retention: self.retention.check(&mut faults),
            prune_interval: self.prune.check(&mut faults),
            insecure: self.insecure,
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
            slow_call: Duration::from_millis(number(
                &mut faults,
                "--slow-call",
                &self.slow_call,
                1..=MAX_SECONDS * 1000,
            )),
            drain_pause: Duration::from_secs(number(
                &mut faults,
                "--drain-pause",
                &self.drain_pause,
                0..=MAX_SECONDS,
            )),
            drain_timeout: seconds(&mut faults, "--drain-timeout", &self.drain_timeout),
            sweep_interval: seconds(&mut faults, "--sweep-interval", &self.sweep_interval),
            sweep_grace: seconds(&mut faults, "--sweep-grace", &self.sweep_grace),
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
        // Set but empty is how some files say "not set"; but who says nothing else may
        // as well have a secret that was not filled in.
        let is_elsewhere = |url: &String| self.data_dir.is_none() || !url.is_empty();
        match (self.database_url.filter(is_elsewhere), self.data_dir) {
            (Some(url), None) => match database_url_fault(&url) {
                None => Ok(DatabaseSource::Url(url)),
                Some(fault) => Err(vec![format!("--database-url: {fault}")]),
            },
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

fn listen_address(faults: &mut Vec<String>, flag: &str, text: &str) -> SocketAddr {
    // The README says localhost too.
    let address = text.replace("localhost:", "127.0.0.1:").parse();
    address.unwrap_or_else(|_| {
        faults.push(format!(
            "{flag}: {text:?} is no address with a port, like 127.0.0.1:50051"
        ));
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

/// What is wrong with a database's URL, which is not shown: it may hold a password.
fn database_url_fault(url: &str) -> Option<String> {
    if url.is_empty() {
        return Some("DATABASE_URL is empty; unset it for a private PostgreSQL".to_owned());
    }
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Some("must be like postgres://user:password@host:5432/name".to_owned());
    }
    match url.parse::<tokio_postgres::Config>() {
        Err(error) => Some(error_chain(&error)),
        Ok(config) if config.get_ssl_mode() == SslMode::Require => {
            Some("sslmode: there is no TLS to the database yet".to_owned())
        }
        Ok(_) => None,
    }
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
