//! Opens connections to the hosts of an address, with or without TLS.

use std::time::{Duration, Instant};

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::AsyncPgConnection;
use secrecy::SecretString;
use tokio::{task::spawn_blocking, time::timeout};
use tokio_postgres::{
    Client, Connection, Socket,
    config::{SslMode as DriverSslMode, TargetSessionAttrs},
    error::SqlState,
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    address::{DatabaseAddress, Host},
    tls::{self, SslMode, Tls},
};
use crate::util::error_chain::error_chain;

/// The timeout of connecting to all hosts together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The stream of a connection, with or without TLS.
type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A client, and the connection that it needs a task for.
pub(super) type Opened = (Client, Connection<Socket, Stream>);

/// Connects to a database that can be written to.
///
/// # Errors
/// Errors of the connection; [`ConnectionError::BadConnection`] after 3 s.
pub async fn connect(address: &DatabaseAddress) -> ConnectionResult<AsyncPgConnection> {
    // Of several hosts only the primary is used, so that reads are not stale after a failover.
    connect_to(address, TargetSessionAttrs::ReadWrite).await
}

/// Connects to a primary or a standby.
///
/// # Errors
/// Those of [`connect`].
pub(super) async fn connect_to_any(
    address: &DatabaseAddress,
) -> ConnectionResult<AsyncPgConnection> {
    connect_to(address, TargetSessionAttrs::Any).await
}

async fn connect_to(
    address: &DatabaseAddress,
    attrs: TargetSessionAttrs,
) -> ConnectionResult<AsyncPgConnection> {
    let (client, connection) = open(address, attrs).await?;
    let setup = AsyncPgConnection::try_from_client_and_connection(client, connection);
    timeout(CONNECT_TIMEOUT, setup)
        .await
        .unwrap_or_else(|_| Err(ConnectionError::BadConnection(no_answer(CONNECT_TIMEOUT))))
}

/// Opens a connection to the first host that accepts one. `attrs` is the kind of server, unless the
/// address says one. A host that does not answer leaves time to those after it.
pub(super) async fn open(
    address: &DatabaseAddress,
    attrs: TargetSessionAttrs,
) -> ConnectionResult<Opened> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let attrs = address.session_attrs().unwrap_or(attrs);
    let hosts = address.hosts();
    let mut left = hosts.len();
    let mut failures = Vec::new();
    for host in hosts {
        match open_host(address, host, attrs, deadline, left).await {
            Ok(opened) => return Ok(opened),
            Err(failure) => failures.push(format!("{}: {failure}", host.label())),
        }
        left -= 1;
    }
    Err(ConnectionError::BadConnection(failures.join("; ")))
}

/// Opens a connection to one host, in the modes that it may have. `hosts` is the number of hosts that
/// share the time until the deadline. Returns why no mode works.
async fn open_host(
    address: &DatabaseAddress,
    host: &Host,
    attrs: TargetSessionAttrs,
    deadline: Instant,
    hosts: usize,
) -> Result<Opened, String> {
    let (connector, password) = read_files(address, host).await?;
    let tls = address.tls();
    let modes = modes(host, tls.settings().mode);
    let mut failures: Vec<String> = Vec::new();
    for (index, mode) in modes.iter().enumerate() {
        let mut config = address.config(host, *mode, password.as_ref());
        config.target_session_attrs(attrs);
        let rest = deadline.saturating_duration_since(Instant::now());
        let attempts = u32::try_from(hosts * (modes.len() - index)).unwrap_or(u32::MAX);
        let time = rest / attempts;
        let attempt = timeout(time, config.connect(connector.clone()));
        // Diesel's own conversion of connection errors drops their cause.
        let (failure, goes_on) = match attempt.await {
            Ok(Ok(opened)) => {
                if let Some(cause) = failures.last().filter(|_| *mode == DriverSslMode::Disable) {
                    tls.note_fallback(&host.label(), cause);
                }
                return Ok(opened);
            }
            Ok(Err(error)) => (described(&error, *mode, tls), may_try_next(&error)),
            Err(_) => (no_answer(time), true),
        };
        failures.push(failure);
        if !goes_on {
            break;
        }
    }
    failures.dedup();
    Err(failures.join("; in the other mode of TLS: "))
}

/// Reads the files of TLS and the password file. They may be on a network file system.
async fn read_files(
    address: &DatabaseAddress,
    host: &Host,
) -> Result<(MakeRustlsConnect, Option<SecretString>), String> {
    let (address, host) = (address.clone(), host.clone());
    let read = spawn_blocking(move || {
        let connector = address.tls().connector();
        let connector = connector.map_err(|error| error_chain(&error))?;
        Ok((connector, address.password_of(&host)))
    });
    read.await.unwrap_or_else(|error| Err(error.to_string()))
}

fn no_answer(time: Duration) -> String {
    format!("no answer within {:.1} s", time.as_secs_f64())
}

/// Returns the modes in which to connect to a host, in their order.
fn modes(host: &Host, mode: SslMode) -> &'static [DriverSslMode] {
    match mode {
        _ if host.is_socket() => &[DriverSslMode::Disable],
        SslMode::Disable => &[DriverSslMode::Disable],
        SslMode::Allow => &[DriverSslMode::Disable, DriverSslMode::Require],
        SslMode::Prefer => &[DriverSslMode::Prefer, DriverSslMode::Disable],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[DriverSslMode::Require],
    }
}

/// Returns whether the next mode may work: TLS failed, or pg_hba.conf has no entry for this mode.
fn may_try_next(error: &tokio_postgres::Error) -> bool {
    let is_refused = error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    is_refused || tls::is_tls_failure(error)
}

/// Returns the causes of an error, and what to do about it.
fn described(error: &tokio_postgres::Error, mode: DriverSslMode, tls: &Tls) -> String {
    let chain = error_chain(error);
    let has_certificate = tls.settings().client.is_some();
    let remedy = tls::remedy(error, has_certificate)
        .or_else(|| remedy(error, mode, has_certificate))
        .or_else(|| password_remedy(&chain));
    match remedy {
        Some(remedy) => format!("{chain}; {remedy}"),
        None => chain,
    }
}

/// Returns what to do about a server that refuses the database, the role or the password of an address.
/// Waiting does not help, unless they are about to be created.
fn remedy(
    error: &tokio_postgres::Error,
    mode: DriverSslMode,
    has_certificate: bool,
) -> Option<&'static str> {
    match *error.code()? {
        SqlState::INVALID_CATALOG_NAME => {
            Some("create the database, or correct its name in --database-url")
        }
        // pg_hba.conf has no entry, or the server wants a certificate.
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Some(match mode {
            DriverSslMode::Disable => {
                "create the role, or allow it to connect without TLS (pg_hba.conf); if the server wants \
                 TLS, set sslmode=require"
            }
            _ if has_certificate => {
                "create the role, allow it to connect (pg_hba.conf), or correct the user and the \
                 certificate"
            }
            _ => {
                "create the role, or allow it to connect (pg_hba.conf); if the server wants a certificate \
                 of the client, set sslcert and sslkey"
            }
        }),
        SqlState::INVALID_PASSWORD => Some("correct the user and password in --database-url"),
        _ => None,
    }
}

/// Returns what to do if there is no password. tokio-postgres has only a text for that.
fn password_remedy(chain: &str) -> Option<&'static str> {
    chain.contains("password missing").then_some(
        "set it in --database-url, in PGPASSWORD, or in a line of the password file, which only its \
         owner may read (chmod 600)",
    )
}
