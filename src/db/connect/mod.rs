//! Opens connections to the hosts of an address, with or without TLS.

mod coded_stream;
mod encryption;
mod failure;
mod session;
mod socket;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::AsyncPgConnection;
use tokio::{task::spawn_blocking, time::timeout};
use tokio_postgres::{CancelToken, Client, Config, SimpleQueryMessage, config::TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

pub(super) use self::session::Driver;
pub use self::session::Session;
use self::{
    encryption::{Begun, Encryption, Stream},
    failure::Failure,
    socket::Endpoint,
};
use super::{
    address::{DatabaseAddress, Host},
    tls::Tls,
};

/// The timeout of connecting to all hosts together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// An open connection.
pub(super) struct Opened {
    pub(super) client: Client,
    pub(super) canceller: Canceller,
    pub(super) driver: Driver,
}

/// Cancels the statement of a connection.
#[derive(Clone)]
pub(super) struct Canceller {
    token: CancelToken,
    server: Arc<Server>,
}

/// One endpoint of a host, and how to connect to it.
struct Server {
    endpoint: Endpoint,
    /// The name of its certificate.
    name: String,
    /// The host and the port, for messages.
    label: String,
    encryption: Encryption,
    config: Config,
    /// Why there is no password.
    no_password: Option<String>,
    tls: Tls,
}

/// Connects to a database that can be written to.
///
/// # Errors
/// Errors of the connection; [`ConnectionError::BadConnection`] after 3 s.
pub async fn connect(address: &DatabaseAddress) -> ConnectionResult<Session> {
    let opened = open_primary(address).await?;
    Ok(Session::new(set_up(opened.client).await?, opened.driver))
}

/// Connects to a primary or a standby.
///
/// # Errors
/// Those of [`connect`].
pub(super) async fn connect_to_any(address: &DatabaseAddress) -> ConnectionResult<Session> {
    let opened = open(address, TargetSessionAttrs::Any).await?;
    Ok(Session::new(set_up(opened.client).await?, opened.driver))
}

/// Opens a connection to a database that can be written to. Of several hosts only the primary is used,
/// so that reads are not stale after a failover.
pub(super) async fn open_primary(address: &DatabaseAddress) -> ConnectionResult<Opened> {
    open(address, TargetSessionAttrs::ReadWrite).await
}

/// Sets what Diesel expects of a session.
pub(super) async fn set_up(client: Client) -> ConnectionResult<AsyncPgConnection> {
    let setup = timeout(CONNECT_TIMEOUT, AsyncPgConnection::try_from(client)).await;
    setup.unwrap_or_else(|_| {
        let failure = Failure::NoAnswer(CONNECT_TIMEOUT);
        Err(ConnectionError::BadConnection(failure.to_string()))
    })
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
        let time = share(deadline, left);
        match open_host(address, host, attrs, time).await {
            Ok(opened) => return Ok(opened),
            Err(failure) => failures.push(format!("{}: {failure}", host.label())),
        }
        left -= 1;
    }
    Err(ConnectionError::BadConnection(failures.join("; ")))
}

/// Returns the share of one attempt in the time until a deadline.
fn share(deadline: Instant, attempts: usize) -> Duration {
    let rest = deadline.saturating_duration_since(Instant::now());
    rest / u32::try_from(attempts).unwrap_or(u32::MAX)
}

/// Opens a connection to one of the addresses of a host, which share its time. Returns why none works.
async fn open_host(
    address: &DatabaseAddress,
    host: &Host,
    attrs: TargetSessionAttrs,
    time: Duration,
) -> Result<Opened, String> {
    let deadline = Instant::now() + time;
    let describe = |failure: Failure| failure.described(address.tls().settings(), None);
    let (config, no_password, connector) = read_files(address, host).await.map_err(describe)?;
    let time = share(deadline, 1);
    let endpoints = timeout(time, Endpoint::of(host.name(), host.port(), &config));
    let endpoints = match endpoints.await {
        Ok(endpoints) => endpoints.map_err(Failure::Socket),
        Err(_) => Err(Failure::NoAnswer(time)),
    };
    let mut endpoints = endpoints.map_err(describe)?;
    if address.is_random() {
        fastrand::shuffle(&mut endpoints);
    }
    let mut failures = Vec::new();
    for endpoint in endpoints {
        let server = Server {
            endpoint,
            name: host.name().to_owned(),
            label: host.label(),
            encryption: Encryption::No,
            config: config.clone(),
            no_password: no_password.clone(),
            tls: address.tls().clone(),
        };
        match server.open(&connector, attrs, deadline).await {
            Ok(opened) => return Ok(opened),
            Err(failure) => failures.push(failure),
        }
    }
    failures.dedup();
    Err(failures.join("; "))
}

/// Reads the files of TLS and the password file. They may be on a network file system.
async fn read_files(
    address: &DatabaseAddress,
    host: &Host,
) -> Result<(Config, Option<String>, MakeRustlsConnect), Failure> {
    let (address, host) = (address.clone(), host.clone());
    let read = spawn_blocking(move || {
        let connector = address.tls().connector()?;
        let (config, no_password) = address.config(&host);
        Ok((config, no_password, connector))
    });
    read.await?
}

impl Server {
    /// Opens a connection, with or without TLS as the address allows. Returns why neither works.
    async fn open(
        mut self,
        connector: &MakeRustlsConnect,
        attrs: TargetSessionAttrs,
        deadline: Instant,
    ) -> Result<Opened, String> {
        let attempts = self.attempts();
        let mut left = attempts.len();
        let mut failures = Vec::new();
        for encryption in attempts {
            self.encryption = *encryption;
            let time = share(deadline, left);
            let attempt = timeout(time, self.log_in(connector.clone(), attrs)).await;
            let failure = match attempt.unwrap_or(Err(Failure::NoAnswer(time))) {
                Ok((client, driver)) => {
                    self.note_fallback(&failures);
                    return Ok(self.opened(client, driver));
                }
                Err(failure) => failure,
            };
            let description = failure.described(self.tls.settings(), self.no_password.as_deref());
            failures.push((*encryption, description));
            if !failure.may_try_next(*encryption == Encryption::IfOffered) {
                break;
            }
            left -= 1;
        }
        Err(joined(&failures))
    }

    fn attempts(&self) -> &'static [Encryption] {
        match self.endpoint {
            Endpoint::Unix(_) => &[Encryption::No],
            Endpoint::Tcp(_) => Encryption::attempts(self.tls.settings().mode),
        }
    }

    async fn log_in(
        &self,
        connector: MakeRustlsConnect,
        attrs: TargetSessionAttrs,
    ) -> Result<(Client, Driver), Failure> {
        let stream = self.stream(connector).await?;
        let is_encrypted = stream.is_encrypted();
        let failed = |source| Failure::Login {
            source,
            is_encrypted,
        };
        let login = self.config.connect_raw(stream, Begun).await;
        let (client, connection) = login.map_err(failed)?;
        let driver = Driver::start(connection);
        let is_refused = attrs == TargetSessionAttrs::ReadWrite
            && is_read_only(&client).await.map_err(failed)?;
        match is_refused {
            true => Err(Failure::ReadOnly),
            false => Ok((client, driver)),
        }
    }

    async fn stream(&self, connector: MakeRustlsConnect) -> Result<Stream, Failure> {
        let socket = self.endpoint.connect(&self.config).await;
        let socket = socket.map_err(Failure::Socket)?;
        let tls = self.tls.settings();
        self.encryption
            .begin(socket, &self.name, tls, connector)
            .await
    }

    /// Warns of a connection without TLS because TLS failed.
    fn note_fallback(&self, failures: &[(Encryption, String)]) {
        if self.encryption == Encryption::No
            && let Some((_, cause)) = failures.last()
        {
            self.tls.note_fallback(&self.label, cause);
        }
    }

    fn opened(self, client: Client, driver: Driver) -> Opened {
        let token = client.cancel_token();
        let server = Arc::new(self);
        Opened {
            client,
            canceller: Canceller { token, server },
            driver,
        }
    }
}

/// Returns the failures with and without TLS as one text.
fn joined(failures: &[(Encryption, String)]) -> String {
    match failures {
        [(_, one), (_, other)] if one == other => one.clone(),
        [(_, one)] => one.clone(),
        _ => {
            let each = failures
                .iter()
                .map(|(encryption, failure)| match encryption {
                    Encryption::No => format!("without TLS: {failure}"),
                    Encryption::IfOffered | Encryption::Yes => format!("with TLS: {failure}"),
                });
            each.collect::<Vec<_>>().join("; ")
        }
    }
}

async fn is_read_only(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let messages = client.simple_query("SHOW transaction_read_only").await?;
    Ok(messages.iter().any(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0) == Some("on"),
        _ => false,
    }))
}

impl Canceller {
    /// Asks the server to cancel the statement. The request travels on a connection of its own.
    pub(super) async fn cancel(&self) {
        if let Some(connector) = self.server.tls.last_connector()
            && let Ok(stream) = self.server.stream(connector).await
        {
            // PostgreSQL does not say whether it cancels anything.
            let _ = self.token.cancel_query_raw(stream, Begun).await;
        }
    }
}
