//! Why a connection fails, and what to do about it.

use std::{io, time::Duration};

use tokio_postgres::error::SqlState;

use crate::{db::tls, util::error_chain::error_chain};

/// Why an attempt to connect failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The time is up.
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
    #[error(transparent)]
    Login(#[from] tokio_postgres::Error),
    /// The server is a standby, or its database is read-only.
    #[error("the database does not allow writes")]
    ReadOnly,
    /// The task that reads files failed.
    #[error("cannot read the files of TLS and the password file")]
    Task(#[from] tokio::task::JoinError),
}

impl Failure {
    /// Returns whether an attempt with or without TLS may work: TLS failed, or pg_hba.conf has no entry
    /// for this one.
    pub(super) fn may_try_next(&self) -> bool {
        match self {
            Failure::NoAnswer(_) | Failure::NoTls | Failure::Handshake(_) => true,
            Failure::Login(error) => {
                error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
                    || tls::is_tls_error(error)
            }
            Failure::Socket(_) | Failure::TlsFiles(_) | Failure::ReadOnly | Failure::Task(_) => {
                false
            }
        }
    }

    /// Returns the causes, and what to do about them. `has_tls` is whether the attempt could use TLS, and
    /// `has_certificate` whether the client presents one.
    pub(super) fn described(&self, has_tls: bool, has_certificate: bool) -> String {
        let chain = error_chain(self);
        let remedy = match self {
            Failure::NoTls => {
                Some("turn on ssl in PostgreSQL, or set sslmode=disable if the network is trusted")
            }
            Failure::Handshake(error) => tls::remedy(error, has_certificate),
            Failure::Login(error) => tls::remedy(error, has_certificate)
                .or_else(|| login_remedy(error, has_tls, has_certificate))
                .or_else(|| password_remedy(&chain)),
            Failure::ReadOnly => Some("name the primary, or all hosts of the cluster"),
            Failure::NoAnswer(_) | Failure::Socket(_) | Failure::TlsFiles(_) | Failure::Task(_) => {
                None
            }
        };
        match remedy {
            Some(remedy) => format!("{chain}; {remedy}"),
            None => chain,
        }
    }
}

/// Returns what to do about a server that refuses the database, the role or the password of an address.
/// Waiting does not help, unless they are about to be created.
fn login_remedy(
    error: &tokio_postgres::Error,
    has_tls: bool,
    has_certificate: bool,
) -> Option<&'static str> {
    match *error.code()? {
        SqlState::INVALID_CATALOG_NAME => {
            Some("create the database, or correct its name in --database-url")
        }
        // pg_hba.conf has no entry, or the server wants a certificate.
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Some(match has_tls {
            false => {
                "create the role, or allow it to connect without TLS (pg_hba.conf); if the server wants \
                 TLS, set sslmode=require"
            }
            true if has_certificate => {
                "create the role, allow it to connect (pg_hba.conf), or correct the user and the \
                 certificate"
            }
            true => {
                "create the role, or allow it to connect (pg_hba.conf); if the server wants a certificate \
                 of the client, set sslcert and sslkey"
            }
        }),
        SqlState::INVALID_PASSWORD => Some("correct the user and password in --database-url"),
        SqlState::TOO_MANY_CONNECTIONS => {
            Some("raise max_connections of PostgreSQL, or lower --database-connections")
        }
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
