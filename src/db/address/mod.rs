//! The address of a database, with everything that a connection needs.
//!
//! An address is a URL or key=value pairs, as libpq reads them. tokio-postgres reads only a part of
//! the words of libpq. The others are taken out here: TLS, the password file, the service file, and
//! those of the environment.

mod environment;
mod libpq;
mod password_file;
mod settings;
mod words;

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::{
    Config,
    config::{LoadBalanceHosts, SslMode as DriverSslMode, TargetSessionAttrs},
};

pub use self::environment::Environment;
use self::{
    password_file::Login,
    settings::{is_random, session_attrs, tls_settings},
    words::Words,
};
use super::tls::Tls;
use crate::util::error_chain::error_chain;

/// The port of PostgreSQL.
const PORT: u16 = 5432;

/// Words for an address that does not set its own. Each host has 1 s to accept the connection: a server
/// answers in milliseconds, but it may be the third host. An idle connection is probed after 30 s (the
/// default of Linux is two hours).
const DEFAULTS: [(&str, &str); 2] = [("connect_timeout", "1"), ("keepalives_idle", "30")];

/// A connection without acknowledgement is dead after this time, in milliseconds, unless the address
/// sets another.
const TCP_USER_TIMEOUT_MS: u64 = 10_000;

/// The words that tokio-postgres reads.
const DRIVER_WORDS: [&str; 11] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "options",
    "sslnegotiation",
    "user",
];

/// Words of libpq that are not supported.
const UNSUPPORTED: [&str; 12] = [
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "service",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
];

/// Words of libpq that have no effect here, and their values that ask for nothing else.
const IGNORED: [(&str, &[&str]); 7] = [
    ("client_encoding", &["utf8", "UTF8", "UTF-8", "auto"]),
    ("gssencmode", &["disable", "prefer"]),
    ("sslcertmode", &["allow"]),
    ("sslcompression", &["0"]),
    ("sslsni", &["1"]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("ssl_max_protocol_version", &["TLSv1.3"]),
];

/// What is wrong with an address, or with several of its words. Never contains a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct AddressError(pub Vec<String>);

/// The address of a database.
#[derive(Clone)]
pub struct DatabaseAddress {
    /// All words, for programs that use libpq.
    words: Words,
    hosts: Vec<Host>,
    /// Whether to connect to the hosts in random order.
    is_random: bool,
    session_attrs: Option<TargetSessionAttrs>,
    password_file: Option<PathBuf>,
    tls: Tls,
}

/// Hides the hosts and the password.
impl fmt::Debug for DatabaseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseAddress")
    }
}

/// Names the hosts: `db1:5432, db2:5432`.
impl fmt::Display for DatabaseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.hosts.iter().map(|host| host.label());
        f.write_str(&hosts.collect::<Vec<_>>().join(", "))
    }
}

/// One host of an address.
#[derive(Clone)]
pub(super) struct Host {
    /// A name, an IP address, or the directory of a Unix socket.
    name: String,
    port: u16,
    /// Everything but the mode of TLS and a password of the password file.
    config: Config,
}

impl DatabaseAddress {
    /// Parses an address. What it does not say is taken from the environment.
    ///
    /// # Errors
    /// Everything that is wrong with the address, the environment, or a file that they name.
    pub fn parse(address: &str, environment: &Environment) -> Result<Self, AddressError> {
        let one = |error| AddressError(vec![error]);
        let mut words = Words::parse(address).map_err(one)?;
        environment.complete(&mut words).map_err(one)?;
        let all = words.clone();
        let mut errors = Vec::new();
        let tls = tls_settings(&mut words, environment, &mut errors);
        let password_file = words.take("passfile").map(PathBuf::from);
        let is_random = is_random(&mut words, &mut errors);
        let parsed = DatabaseAddress {
            words: all,
            is_random,
            session_attrs: session_attrs(&mut words, &mut errors),
            hosts: hosts(words, is_random, &mut errors),
            password_file: password_file.or_else(|| environment.default_password_file()),
            tls: Tls::new(tls),
        };
        if errors.is_empty()
            && let Err(error) = parsed.tls.connector()
        {
            errors.push(error_chain(&error));
        }
        match errors.is_empty() {
            true => Ok(parsed),
            false => Err(AddressError(errors)),
        }
    }

    /// Returns the hosts in the order in which to connect to them.
    pub(super) fn hosts(&self) -> Vec<&Host> {
        let mut hosts: Vec<_> = self.hosts.iter().collect();
        if self.is_random {
            fastrand::shuffle(&mut hosts);
        }
        hosts
    }

    /// Returns which servers the address asks for.
    pub(super) fn session_attrs(&self) -> Option<TargetSessionAttrs> {
        self.session_attrs
    }

    /// Returns the TLS of the connections.
    pub(super) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Returns the settings of a connection to a host. `password` is that of the password file.
    pub(super) fn config(
        &self,
        host: &Host,
        mode: DriverSslMode,
        password: Option<&SecretString>,
    ) -> Config {
        let mut config = host.config.clone();
        config.ssl_mode(mode);
        if let Some(password) = password {
            config.password(password.expose_secret());
        }
        config
    }

    /// Returns the password of the password file, unless the address has one.
    pub(super) fn password_of(&self, host: &Host) -> Option<SecretString> {
        if host.config.get_password().is_some() {
            return None;
        }
        let user = host.config.get_user().unwrap_or_default();
        let login = Login {
            host: &host.name,
            port: &host.port.to_string(),
            database: host.config.get_dbname().unwrap_or(user),
            user,
        };
        password_file::password(self.password_file.as_deref()?, &login)
    }

    /// Returns the hosts of other machines to which connections are not encrypted, or whose
    /// certificates are not verified. Others can read or change what passes.
    #[must_use]
    pub fn unprotected_hosts(&self) -> Vec<String> {
        let is_verified = self.tls.settings().is_verified();
        let hosts = self.hosts.iter().filter(|_| !is_verified);
        let remote = hosts.filter(|host| !host.is_local());
        remote.map(Host::label).collect()
    }
}

/// Parses an address that is complete without an environment.
impl FromStr for DatabaseAddress {
    type Err = AddressError;

    fn from_str(address: &str) -> Result<Self, AddressError> {
        DatabaseAddress::parse(address, &Environment::empty())
    }
}

impl Host {
    /// Returns the host and the port for a message.
    pub(super) fn label(&self) -> String {
        format!("{}:{}", self.name, self.port)
    }

    /// Returns whether it is a Unix socket, which never speaks TLS.
    pub(super) fn is_socket(&self) -> bool {
        self.name.starts_with('/')
    }

    fn is_local(&self) -> bool {
        let is_loopback = |address: IpAddr| address.is_loopback();
        let is_named = self.name == "localhost" || self.name.parse().is_ok_and(is_loopback);
        let mut addresses = self.config.get_hostaddrs().iter().copied();
        self.is_socket() || is_named && addresses.all(is_loopback)
    }
}

/// Makes the hosts of the words that are left.
fn hosts(mut words: Words, is_random: bool, errors: &mut Vec<String>) -> Vec<Host> {
    let names = list(words.take("host"));
    let addresses = list(words.take("hostaddr"));
    let ports = list(words.take("port"));
    let mut config = config(words, errors);
    if is_random {
        // Of the addresses of one name.
        config.load_balance_hosts(LoadBalanceHosts::Random);
    }
    let count = names.len().max(addresses.len());
    if count == 0 {
        errors.push(
            "the address names no host; expected postgres://user:password@host:5432/name, or \
             postgres:///name?host=/run/postgresql for a Unix socket"
                .to_owned(),
        );
    }
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        errors.push("host, hostaddr: expected as many of one as of the other".to_owned());
    }
    if ports.len() > 1 && ports.len() != count {
        errors.push("port: expected one, or one for each host".to_owned());
    }
    let mut hosts = Vec::new();
    for index in 0..count {
        let mut config = config.clone();
        let address = addresses.get(index).filter(|it| !it.is_empty());
        let name = names.get(index).filter(|it| !it.is_empty()).or(address);
        let port = ports
            .get(index)
            .or(ports.first())
            .filter(|it| !it.is_empty());
        let port = port.map_or(Ok(PORT), |port| port.parse());
        match (name, port) {
            (Some(name), Ok(port)) if port > 0 => {
                config.host(name).port(port);
                match address.map(|it| it.parse()) {
                    Some(Ok(address)) => drop(config.hostaddr(address)),
                    Some(Err(_)) => errors.push("hostaddr: expected an IP address".to_owned()),
                    None => {}
                }
                hosts.push(Host {
                    name: name.clone(),
                    port,
                    config,
                });
            }
            (None, _) => errors.push("host: expected a name, got an empty one".to_owned()),
            (Some(_), _) => errors.push("port: expected a number from 1 to 65535".to_owned()),
        }
    }
    hosts
}

/// Makes the settings that all hosts share. tokio-postgres reads the words that are left.
fn config(mut words: Words, errors: &mut Vec<String>) -> Config {
    let password = words.take("password");
    if let Some(count) = words.take("keepalives_count") {
        words.set_default("keepalives_retries", count);
    }
    if let Some(name) = words.take("fallback_application_name") {
        words.set_default("application_name", name);
    }
    for (word, value) in DEFAULTS {
        words.set_default(word, value);
    }
    for (word, values) in IGNORED {
        let value = words.take(word);
        if value.is_some_and(|value| !values.contains(&value.as_str())) {
            errors.push(format!("{word}: expected {}", values.join(" or ")));
        }
    }
    let timeout = words.take("tcp_user_timeout");
    let timeout = timeout.map_or(Ok(TCP_USER_TIMEOUT_MS), |it| it.parse());
    let mut text = String::new();
    for (word, value) in words.into_pairs() {
        if !DRIVER_WORDS.contains(&word.as_str()) {
            errors.push(unsupported(&word));
            continue;
        }
        let value = value.replace('\\', "\\\\").replace('\'', "\\'");
        let pair = format!("{word}='{value}' ");
        match pair.parse::<Config>() {
            Ok(_) => text.push_str(&pair),
            Err(_) => errors.push(format!("{word}: the value is invalid")),
        }
    }
    // Each pair of it is valid.
    let mut config: Config = text.parse().unwrap_or_default();
    match timeout {
        Ok(timeout) => drop(config.tcp_user_timeout(Duration::from_millis(timeout))),
        Err(_) => errors.push("tcp_user_timeout: expected a number of milliseconds".to_owned()),
    }
    if let Some(password) = password {
        config.password(password);
    }
    config
}

/// Returns the error of a word that is not supported. An unknown one is not shown, because it may be a
/// part of a password.
fn unsupported(word: &str) -> String {
    match UNSUPPORTED.contains(&word) {
        true => format!("{word}: not supported"),
        false => "the address has a word that libpq does not know".to_owned(),
    }
}

/// Returns the items of a list.
fn list(value: Option<String>) -> Vec<String> {
    let value = value.unwrap_or_default();
    let items = value.split(',').map(str::to_owned);
    items.filter(|_| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_other_machines_are_named_if_nothing_is_verified() {
        for (address, expected) in [
            ("postgres://a@db1,db2:6432/b", &["db1:5432", "db2:6432"][..]),
            ("postgres://a@db1/b?sslmode=require", &["db1:5432"]),
            ("postgres://a@localhost,[::1],127.0.0.2/b", &[]),
            ("host=localhost hostaddr=192.0.2.1", &["localhost:5432"]),
            ("postgres:///b?host=/run/postgresql", &[]),
            (
                "postgres:///b?host=/run/postgresql&sslmode=verify-full",
                &[],
            ),
        ] {
            let address: DatabaseAddress = address.parse().unwrap();
            assert_eq!(address.unprotected_hosts(), expected);
        }
    }

    #[test]
    fn a_host_may_have_an_address_and_a_port_of_its_own() {
        let address = "host=db1,db2 hostaddr=192.0.2.1,192.0.2.2 port=1,2 user=a";
        let address: DatabaseAddress = address.parse().unwrap();
        assert_eq!(address.to_string(), "db1:1, db2:2");
        let addresses = address
            .hosts()
            .into_iter()
            .map(|host| host.config.get_hostaddrs());
        assert_eq!(addresses.flatten().count(), 2);
    }
}
