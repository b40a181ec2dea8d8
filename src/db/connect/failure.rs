//! Why a connection fails, and what to do about it.

use std::{io, time::Duration};

use tokio_postgres::error::SqlState;

use crate::{
    db::tls::{self, TlsSettings},
    util::error_chain::error_chain,
};

/// Why an attempt to connect failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The server did not answer within the time of the attempt.
    #[error("no answer within {:.1} s", .0.as_secs_f64())]
    NoAnswer(Duration),
    /// The host has no address, or the socket failed.
    #[error("error connecting to server")]
    Socket(#[source] io::Error),
    /// The server does not offer TLS.
    #[error("the server does not support TLS")]
    NoTls,
    /// The handshake failed.
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The files of TLS cannot be used.
    #[error(transparent)]
    TlsFiles(#[from] tls::TlsFilesError),
    /// The server refused the login, or the connection was lost.
    #[error("login failed")]
    Login {
        /// Why.
        source: tokio_postgres::Error,
        /// Whether the connection had TLS.
        is_encrypted: bool,
    },
    /// The server is a standby, or its database is read-only.
    #[error("the database does not allow writes")]
    ReadOnly,
    /// The task that reads files failed.
    #[error("cannot read the files of TLS and the password file")]
    Task(#[from] tokio::task::JoinError),
}

impl Failure {
    /// Returns whether the next attempt may succeed: TLS failed, or pg_hba.conf has no entry for this
    /// kind of connection. `is_without_tls_next` is whether the next attempt is one without TLS.
    pub(super) fn may_try_next(&self, is_without_tls_next: bool) -> bool {
        match self {
            Failure::NoAnswer(_) | Failure::NoTls | Failure::Handshake(_) => true,
            // The server has no TLS, so the next attempt would be the same.
            Failure::Login {
                is_encrypted: false,
                ..
            } if is_without_tls_next => false,
            Failure::Login { source, .. } => {
                source.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
                    || tls::is_tls_error(source)
            }
            Failure::Socket(_) | Failure::TlsFiles(_) | Failure::ReadOnly | Failure::Task(_) => {
                false
            }
        }
    }

    /// Returns the causes, and what to do about them. `no_password` is why there is no password.
    pub(super) fn described(&self, settings: &TlsSettings, no_password: Option<&str>) -> String {
        let chain = match self {
            // The text of the error contains the time, which would make each failure another one.
            Failure::Handshake(error) => tls::validity(error)
                .map_or_else(|| error_chain(self), |text| format!("{self}: {text}")),
            _ => error_chain(self),
        };
        let has_certificate = settings.client.is_some();
        let remedy = match self {
            Failure::NoTls => {
                Some("turn on ssl in PostgreSQL, or set sslmode=disable if the network is trusted")
            }
            Failure::Handshake(error)
                if settings.is_direct && error.kind() == io::ErrorKind::UnexpectedEof =>
            {
                Some("sslnegotiation=direct needs PostgreSQL 17 or newer")
            }
            Failure::Handshake(error) => tls::remedy(error, has_certificate),
            Failure::Login {
                source,
                is_encrypted,
            } => tls::remedy(source, has_certificate)
                .or_else(|| login_remedy(source, *is_encrypted, has_certificate))
                .or_else(|| is_password_missing(source).then_some(PASSWORD_REMEDY)),
            Failure::ReadOnly => {
                Some("it is a standby or read-only; the primary must be among the hosts")
            }
            Failure::NoAnswer(_) | Failure::Socket(_) | Failure::TlsFiles(_) | Failure::Task(_) => {
                None
            }
        };
        let cause = no_password.filter(|_| remedy == Some(PASSWORD_REMEDY));
        let parts = [Some(chain.as_str()), cause, remedy];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// Returns what to do about a server that refuses the database, the role or the password of an address.
/// Waiting does not help, unless they are about to be created.
fn login_remedy(
    error: &tokio_postgres::Error,
    is_encrypted: bool,
    has_certificate: bool,
) -> Option<&'static str> {
    match *error.code()? {
        SqlState::INVALID_CATALOG_NAME => {
            Some("create the database, or correct its name in the address")
        }
        // pg_hba.conf has no entry, or the server wants a certificate.
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Some(match is_encrypted {
            false => {
                "create the role, or allow it to log in (ALTER ROLE ... LOGIN) and to connect without TLS \
                 (pg_hba.conf); if the server wants TLS, set sslmode=require"
            }
            true if has_certificate => {
                "create the role, allow it to log in (ALTER ROLE ... LOGIN) and to connect (pg_hba.conf), \
                 or correct the user and the certificate"
            }
            true => {
                "create the role, or allow it to log in (ALTER ROLE ... LOGIN) and to connect \
                 (pg_hba.conf); if the server wants a certificate of the client, set sslcert and sslkey"
            }
        }),
        SqlState::INVALID_PASSWORD => Some(
            "correct the user or the password: in the address, PGPASSWORD or the password file",
        ),
        SqlState::INSUFFICIENT_PRIVILEGE => Some("GRANT CONNECT ON DATABASE to the role"),
        // PgBouncer has no other code.
        SqlState::PROTOCOL_VIOLATION => Some(
            "correct the user, the password or the database; the log of the pooler may say more",
        ),
        SqlState::TOO_MANY_CONNECTIONS => Some(
            "raise max_connections of PostgreSQL or the connection limit of the role or the database, \
                 or lower --database-connections",
        ),
        _ => None,
    }
}

/// What to do if there is no password.
const PASSWORD_REMEDY: &str = "set it in the address, in PGPASSWORD, or in a line of the password file, \
     which must belong to the account of the service, and which no other may read (chmod 600)";

/// Returns whether the server asks for a password, and there is none. tokio-postgres has only a text for
/// that.
fn is_password_missing(error: &tokio_postgres::Error) -> bool {
    error_chain(error).contains("password missing")
}
