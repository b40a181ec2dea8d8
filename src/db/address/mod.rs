//! The address of a database, with everything that a connection needs.
//!
//! An address is a URL or key=value pairs, as libpq reads them. tokio-postgres reads only a part of
//! the words of libpq. The others are taken out here: TLS, the password file, the service file, and
//! those of the environment.

mod driver;
mod environment;
mod libpq;
mod password_file;
mod settings;
mod words;

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::{Config, config::TargetSessionAttrs};

pub use self::environment::Environment;
use self::{
    driver::config,
    password_file::Login,
    settings::{is_random, session_attrs, tls_settings},
    words::Words,
};
use super::tls::Tls;
use crate::util::error_chain::error_chain;

/// The port of PostgreSQL.
const PORT: u16 = 5432;

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
    /// Everything but TLS and a password of the password file.
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
            hosts: hosts(words, &mut errors),
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

    /// Returns whether to connect to the addresses of a host in random order.
    pub(super) fn is_random(&self) -> bool {
        self.is_random
    }

    /// Returns the settings of a connection to a host. Reads the password file, unless the address has a
    /// password. Also returns why there is no password.
    pub(super) fn config(&self, host: &Host) -> (Config, Option<String>) {
        let mut config = host.config.clone();
        if config.get_password().is_some() {
            return (config, None);
        }
        match self.password_of(host) {
            Ok(password) => {
                config.password(password.expose_secret());
                (config, None)
            }
            Err(cause) => (config, Some(cause)),
        }
    }

    fn password_of(&self, host: &Host) -> Result<SecretString, String> {
        let user = host.config.get_user().unwrap_or_default();
        let login = Login {
            host: &host.name,
            port: &host.port.to_string(),
            database: host.config.get_dbname().unwrap_or(user),
            user,
        };
        let path = self.password_file.as_deref();
        password_file::password(path.ok_or("HOME is not set")?, &login)
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

    /// Returns a name, an IP address, or the directory of a Unix socket.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    fn is_local(&self) -> bool {
        let is_loopback = |address: IpAddr| address.is_loopback();
        let is_named = self.name == "localhost" || self.name.parse().is_ok_and(is_loopback);
        let mut addresses = self.config.get_hostaddrs().iter().copied();
        self.name.starts_with('/') || is_named && addresses.all(is_loopback)
    }
}

/// Makes the hosts of the words that are left.
fn hosts(mut words: Words, errors: &mut Vec<String>) -> Vec<Host> {
    let names = list(words.take("host"));
    let addresses = list(words.take("hostaddr"));
    let ports = list(words.take("port"));
    if words.get("dbname").is_some_and(|name| name.contains("://")) {
        errors.push("dbname: expected a name, got a URL; set --database-url to it".to_owned());
    }
    let config = config(words, errors);
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
            (Some(name), _) if !is_host(name) => errors.push(
                "host: expected a name, an IP address, or the directory of a Unix socket; a whole URL \
                 belongs into --database-url"
                    .to_owned(),
            ),
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

/// Returns whether a text can be a host. Another one may contain a password, and would be logged.
fn is_host(name: &str) -> bool {
    let is_part = |it: char| it.is_alphanumeric() || matches!(it, '-' | '.' | '_' | ':' | '%');
    name.starts_with('/') || name.chars().all(is_part)
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
    fn an_error_names_the_word_and_what_it_expects() {
        for (address, expected) in [
            (
                "postgres://a@db1/b?sslmode=",
                "sslmode: expected disable, allow,",
            ),
            ("postgres://a@db1/b?sslmod=require", "; sslmode is similar"),
            (
                "postgres://a@db1/b?schema=c",
                "a word that libpq does not know",
            ),
            ("postgres://a:5%@db1/b", "write %25 for %"),
            (
                "postgres://a@db1/b?channel_binding=on",
                "channel_binding: expected disable,",
            ),
            (
                "postgres://a@db1/b?connect_timeout=x",
                "connect_timeout: expected a number",
            ),
            ("host=db1;user=a", "host: expected a name"),
            ("host=postgres://a:b@db1/c user=a", "host: expected a name"),
            (
                "host=db1 dbname=postgres://a:b@db1/c",
                "dbname: expected a name",
            ),
            (
                "host=db1 sslmode=disable channel_binding=require",
                "channel_binding: require needs TLS",
            ),
        ] {
            let error = address.parse::<DatabaseAddress>().unwrap_err();
            assert!(error.to_string().contains(expected), "{address}: {error}");
        }
        // A secret in a file often ends with a newline.
        assert!("postgres://a@db1/b\n".parse::<DatabaseAddress>().is_ok());
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
