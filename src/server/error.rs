//! Why the service failed.

use std::net::SocketAddr;

use crate::{
    db::{address::AddressError, migrations},
    rpc::{auth::certificate::CertificateMappingError, transport::tls::TlsError},
};

/// Why the service failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is invalid or in use.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The answer of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The threads for calls could not be started.
    #[error("cannot start threads")]
    Threads(#[source] std::io::Error),
    /// No signal handler could be installed.
    #[error("cannot install signal handlers")]
    Signals(#[source] std::io::Error),
    /// The private PostgreSQL failed.
    #[error("the private PostgreSQL failed")]
    Embedded(#[from] crate::embedded::EmbeddedError),
    /// The address of the private PostgreSQL is invalid.
    #[error("the address of the private PostgreSQL is invalid")]
    Address(#[from] AddressError),
    /// The schema lacks migrations.
    #[error(
        "the database schema lacks the migrations {}; run `bridgebook migrate up`, or start with --migrate",
        .0.join(", ")
    )]
    SchemaBehind(Vec<String>),
    /// The role lacks rights on the tables.
    #[error(
        "the role of --database-url lacks rights; run as the owner of the tables: {}",
        .0.join("; ")
    )]
    MissingGrants(Vec<String>),
    /// A pooler shares sessions between clients.
    #[error(
        "the connection pooler in front of the database shares sessions between clients, which \
         loses prepared statements and session settings; set pool_mode = session"
    )]
    SharedSessions,
    /// The schema could not be read or migrated.
    #[error("cannot read or migrate the database schema")]
    Schema(#[from] migrations::MigrationError),
    /// The reflection service could not be built.
    #[error("the descriptors of the contract are invalid")]
    Reflection(#[from] prost_reflect::DescriptorError),
    /// A metric could not be registered.
    #[error("cannot register a metric")]
    Metrics(#[from] prometheus::Error),
    /// The certificate, the key or the roots are unusable.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// The file of --tls-client-tokens is unusable.
    #[error("cannot map client certificates to tokens")]
    CertificateMapping(#[from] CertificateMappingError),
}
