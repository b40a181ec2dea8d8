//! The settings of `bridgebook serve`. Every flag has an environment variable.

mod database;
mod limits;
mod retention;
mod setting;
mod tls;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use clap::Args;

use self::setting::{Address, Choice, Number, Seconds, Switch, take};
pub use self::{
    database::{DatabaseSettings, DatabaseSource},
    limits::LimitSettings,
    retention::{PruneSettings, RetentionSettings},
    setting::ConfigErrors,
    tls::{TlsConfig, TlsSettings},
};
use crate::{
    ops::retention::model::RetentionDefaults, rpc::limits::Limits, util::net::is_loopback,
};

/// The settings as given on the command line and in the environment.
#[derive(Debug, Clone, Args)]
// `--drain-pause -3` gets our error, not the one of an unknown flag.
#[command(allow_negative_numbers = true)]
pub struct Settings {
    /// Serve gRPC on this address. An address that other machines can reach requires tokens and TLS,
    /// or --insecure.
    #[arg(
        long,
        env = "BRIDGEBOOK_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:50051"
    )]
    listen: Address,

    /// Serve /metrics for Prometheus, /livez and /readyz over HTTP on this address, without
    /// authentication; the responses contain no data of tenants, only the namespaces of the busiest
    /// ones, and the ids of their tokens. Default: off.
    #[arg(long, env = "BRIDGEBOOK_METRICS_LISTEN", value_name = "ADDR:PORT")]
    metrics_listen: Option<Address>,

    /// Name this many namespaces in metrics, those that take most; 0 names none.
    #[arg(long, env = "BRIDGEBOOK_METRICS_NAMESPACES", value_name = "N", default_value = "20")]
    metrics_namespaces: Number<0, MAX_METRICS_LABELS>,

    /// Name the ids of this many tokens in metrics, those that take most; 0 names none.
    #[arg(long, env = "BRIDGEBOOK_METRICS_TOKENS", value_name = "N", default_value = "20")]
    metrics_tokens: Number<0, MAX_METRICS_LABELS>,

    /// Require this of callers. Default: none on a loopback address or with --insecure, as long as
    /// TLS is off; else tokens.
    #[arg(long, env = "BRIDGEBOOK_AUTH", value_name = "tokens|none")]
    auth: Option<Choice<Auth>>,

    /// Allow an address that other machines can reach without tokens, without TLS, or without both.
    /// Without tokens, every client that connects can read and write all data. Without TLS, anyone on
    /// the network path can read the traffic and steal tokens.
    #[arg(
        long,
        env = "BRIDGEBOOK_INSECURE",
        value_name = "true|false",
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false"
    )]
    insecure: Switch,

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

    /// Apply pending migrations before serving. The private PostgreSQL is always migrated.
    #[arg(
        long,
        env = "BRIDGEBOOK_MIGRATE",
        value_name = "true|false",
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false",
        help_heading = "Database"
    )]
    migrate: Switch,

    /// Keep at most this many connections to the database open.
    #[arg(
        long,
        env = "BRIDGEBOOK_DATABASE_CONNECTIONS",
        value_name = "N",
        default_value = "16",
        help_heading = "Database"
    )]
    database_connections: Number<MIN_CONNECTIONS, MAX_CONNECTIONS>,

    /// End every call after this many seconds, even if its own deadline is later.
    #[arg(
        long,
        env = "BRIDGEBOOK_CALL_TIMEOUT",
        value_name = "SECONDS",
        default_value = "30",
        help_heading = "Calls"
    )]
    call_timeout: Seconds,

    /// Log calls that take at least this many milliseconds.
    #[arg(
        long,
        env = "BRIDGEBOOK_SLOW_CALL",
        value_name = "MILLISECONDS",
        default_value = "1000",
        help_heading = "Calls"
    )]
    slow_call: Number<1, MAX_MILLISECONDS>,

    /// Keep serving for this many seconds of a shutdown while health reports NOT_SERVING, so that
    /// load balancers stop sending calls.
    #[arg(
        long,
        env = "BRIDGEBOOK_DRAIN_PAUSE",
        value_name = "SECONDS",
        default_value = "0",
        help_heading = "Shutdown"
    )]
    drain_pause: Seconds<0>,

    /// Wait at most this many seconds of a shutdown for calls in progress to finish.
    #[arg(
        long,
        env = "BRIDGEBOOK_DRAIN_TIMEOUT",
        value_name = "SECONDS",
        default_value = "10",
        help_heading = "Shutdown"
    )]
    drain_timeout: Seconds,

    /// Look for stale nodes, silent for longer than their TTL, at this interval, in seconds.
    #[arg(
        long,
        env = "BRIDGEBOOK_SWEEP_INTERVAL",
        value_name = "SECONDS",
        default_value = "5",
        help_heading = "Nodes"
    )]
    sweep_interval: Seconds,

    /// Mark no node as stale for this many seconds after the start and after an outage of the
    /// database, because heartbeats could not arrive before.
    #[arg(
        long,
        env = "BRIDGEBOOK_SWEEP_GRACE",
        value_name = "SECONDS",
        default_value = "300",
        help_heading = "Nodes"
    )]
    sweep_grace: Seconds,
}

/// What the service requires of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Auth {
    /// A token, or a client certificate that maps to one.
    Tokens,
    /// Nothing.
    None,
}

/// The valid settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address of gRPC.
    pub listen: SocketAddr,
    /// The address of the metrics endpoint, if it is on.
    pub metrics_listen: Option<SocketAddr>,
    /// The number of namespaces that metrics name.
    pub metrics_namespaces: usize,
    /// The number of tokens that metrics name.
    pub metrics_tokens: usize,
    /// What the service requires of callers.
    pub auth: Auth,
    /// The files of TLS, if it is on.
    pub tls: Option<TlsConfig>,
    /// Limits of connections, calls and contents.
    pub limits: Limits,
    /// How long rows are kept in namespaces without a policy.
    pub retention: RetentionDefaults,
    /// The interval of removing expired rows.
    pub prune_interval: Duration,
    /// Whether the operator accepts the risk of serving others without tokens or TLS.
    pub insecure: bool,
    /// Where the database runs.
    pub database: DatabaseSource,
    /// Whether to apply pending migrations at the start.
    pub migrate: bool,
    /// The maximum number of connections to the database.
    pub database_connections: u32,
    /// The longest duration of a call.
    pub call_timeout: Duration,
    /// The duration from which a call is logged as slow.
    pub slow_call: Duration,
    /// How long a shutdown keeps serving before the drain.
    pub drain_pause: Duration,
    /// The longest duration of the drain.
    pub drain_timeout: Duration,
    /// The interval between two sweeps for stale nodes.
    pub sweep_interval: Duration,
    /// How long no node is marked as stale after the start and after an outage.
    pub sweep_grace: Duration,
}

/// The smallest number of connections: one for batches, one for queries.
const MIN_CONNECTIONS: u64 = 2;
/// The largest number. More than a few connections for each core of the database only compete
/// with each other.
const MAX_CONNECTIONS: u64 = 1000;
/// The largest number of namespaces, and of tokens, in metrics. Each has three series in every replica.
const MAX_METRICS_LABELS: u64 = 1000;
/// A day in milliseconds.
const MAX_MILLISECONDS: u64 = 86_400_000;

impl Settings {
    /// Checks each setting, and which settings are given together.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check(self) -> Result<Config, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let listen: Option<SocketAddr> = take!(errors, self.listen);
        let listen = listen.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
        let tls = self.tls.check(&mut errors);
        let insecure = take!(errors, self.insecure);
        let auth = self
            .auth
            .as_ref()
            .and_then(|auth| errors.take("auth", auth));
        let auth = check_auth(listen, auth, insecure, tls.as_ref(), &mut errors);
        let metrics_listen = match &self.metrics_listen {
            // Some tools set a variable to nothing instead of unsetting it.
            Some(address) if !address.is_empty() => errors.take("metrics_listen", address),
            _ => None,
        };
        // Port 0 stands for any free port.
        if metrics_listen == Some(listen) && listen.port() != 0 {
            errors.push(format!(
                "--metrics-listen: {listen} is also the address of --listen"
            ));
        }
        let limits = self.limits.check(&mut errors);
        if auth == Auth::None && limits.quotas.token.calls_per_second.is_some() {
            errors.push(
                "--max-rate: has no effect without tokens; set --auth=tokens, or --max-namespace-rate",
            );
        }
        let config = Config {
            listen,
            metrics_listen,
            metrics_namespaces: take!(errors, self.metrics_namespaces),
            metrics_tokens: take!(errors, self.metrics_tokens),
            auth,
            tls,
            limits,
            retention: self.retention.check(&mut errors),
            prune_interval: self.prune.check(&mut errors),
            insecure,
            database: self.database.check(&mut errors),
            migrate: take!(errors, self.migrate),
            database_connections: take!(errors, self.database_connections),
            call_timeout: take!(errors, self.call_timeout),
            slow_call: Duration::from_millis(take!(errors, self.slow_call)),
            drain_pause: take!(errors, self.drain_pause),
            drain_timeout: take!(errors, self.drain_timeout),
            sweep_interval: take!(errors, self.sweep_interval),
            sweep_grace: take!(errors, self.sweep_grace),
        };
        errors.finish(config)
    }
}

/// Returns what the service requires of callers. Notes an error if other machines can connect
/// without tokens or TLS although nothing says that this is intended.
fn check_auth(
    listen: SocketAddr,
    auth: Option<Auth>,
    insecure: bool,
    tls: Option<&TlsConfig>,
    errors: &mut ConfigErrors,
) -> Auth {
    let may_be_open = is_loopback(listen) || insecure;
    let auth = auth.unwrap_or(match may_be_open && tls.is_none() {
        true => Auth::None,
        false => Auth::Tokens,
    });
    if auth == Auth::None && tls.is_some_and(|it| it.client_tokens.is_some()) {
        errors.push("--tls-client-tokens: has no effect without tokens; set --auth=tokens");
    }
    if !may_be_open && (auth == Auth::None || tls.is_none()) {
        errors.push(format!(
            "--listen: other machines can reach {listen}; this requires tokens and TLS \
             (--tls-certificate and --tls-key), or --insecure"
        ));
    }
    auth
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Serve {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn debug_output_hides_the_database_url() {
        let url = "--database-url=postgres://user:hunter2@db1/book";
        let serve = Serve::parse_from(["serve", url]);
        let given = format!("{serve:?}");
        let checked = format!("{:?}", serve.settings.check().unwrap());
        for text in [given, checked] {
            assert!(!text.contains("hunter2") && !text.contains("db1"), "{text}");
        }
    }
}
