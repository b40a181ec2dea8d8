//! TLS of the connections to PostgreSQL, with the meaning that libpq gives to its words:
//! <https://www.postgresql.org/docs/current/libpq-ssl.html>.

mod remedy;
mod verifier;

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, crypto::ring};

pub(super) use self::remedy::{is_tls_error, remedy, validity};
use self::verifier::AnyHost;
use crate::util::{
    error_chain::error_chain,
    file_watch::{self, ReadError},
    pem::{PemError, certificates, private_key},
};

/// How long the roots of the machine are used before they are read again.
const SYSTEM_ROOTS_LIFETIME: Duration = Duration::from_secs(60);

/// The name of PostgreSQL's protocol, which it demands if TLS begins without its own request.
const ALPN: &[u8] = b"postgresql";

/// When a connection uses TLS: `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server refuses a connection without it.
    Allow,
    /// If the server has it, and accepts the connection.
    Prefer,
    /// Always. The certificate of the server is verified only if there is a root certificate.
    Require,
    /// Always. A trusted root has signed the certificate of the server.
    VerifyCa,
    /// Always. A trusted root has signed the certificate of the server, which names the host.
    VerifyFull,
}

impl SslMode {
    /// The names of all modes.
    pub(super) const NAMES: [(&str, SslMode); 6] = [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];
}

/// The certificates that may sign the one of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// The certificate is not verified.
    None,
    /// The certificates in a file. Each of them is trusted, also an intermediate one.
    File(PathBuf),
    /// Those that the machine trusts.
    System,
}

/// The settings of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TlsSettings {
    pub(super) mode: SslMode,
    pub(super) roots: Roots,
    /// The files of the client certificate and of its key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
    /// Whether TLS begins at once, without PostgreSQL's own request for it.
    pub(super) is_direct: bool,
}

impl TlsSettings {
    /// Returns the settings of connections without TLS.
    pub(super) fn disabled() -> Self {
        TlsSettings {
            mode: SslMode::Disable,
            roots: Roots::None,
            client: None,
            is_direct: false,
        }
    }

    /// Returns whether the certificate of the server is verified.
    pub(super) fn is_verified(&self) -> bool {
        self.mode >= SslMode::Require && self.roots != Roots::None
    }
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file has the wrong content.
    #[error(transparent)]
    Content(#[from] PemError),
    /// No certificate can be a root, or the machine has none.
    #[error("sslrootcert has no certificate that can be a root")]
    NoRoots,
    /// Other accounts may read the key of the client.
    #[error("sslkey: other accounts may read {}; chmod 600", .0.display())]
    OpenKey(PathBuf),
    /// The certificate or the key of the client is invalid, or they do not match.
    #[error(
        "sslcert and sslkey are invalid or do not match; the certificate must be X.509 version 3, which \
         openssl makes with -extfile"
    )]
    Client(#[source] rustls::Error),
}

/// Makes TLS connections. Clones share the files that were read last.
#[derive(Clone)]
pub(super) struct Tls {
    settings: Arc<TlsSettings>,
    current: Arc<Mutex<Option<Current>>>,
    /// Set once a connection was made without TLS, because TLS failed.
    has_fallen_back: Arc<AtomicBool>,
}

/// The connector of the files that were read last.
struct Current {
    contents: Contents,
    connector: MakeRustlsConnect,
    /// The last error of reading them again, which is logged once.
    failure: Option<String>,
}

/// The contents of the files.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    roots: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
    /// Changes when the roots of the machine have to be read again.
    system_roots_read_at: Option<Instant>,
}

impl Tls {
    pub(super) fn new(settings: TlsSettings) -> Self {
        Tls {
            settings: Arc::new(settings),
            current: Arc::default(),
            has_fallen_back: Arc::default(),
        }
    }

    /// Warns, once, of a connection without TLS because of an error of TLS.
    pub(super) fn note_fallback(&self, host: &str, cause: &str) {
        if !self.has_fallen_back.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                host,
                cause,
                "TLS to the database failed, so the connection is not encrypted; set sslmode=require \
                 to refuse that, or sslmode=disable if the network is trusted"
            );
        }
    }

    pub(super) fn settings(&self) -> &TlsSettings {
        &self.settings
    }

    /// Returns the connector for the files as they are now. If they cannot be read or are invalid, logs
    /// it and returns the last one: one of two files may be replaced before the other.
    ///
    /// # Errors
    /// Every [`TlsFilesError`], if there is no last one.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, TlsFilesError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let last = current.as_ref().map(|it| &it.contents);
        let connector = Contents::read(&self.settings, last).and_then(|contents| match &*current {
            Some(current) if current.contents == contents => Ok(current.connector.clone()),
            _ => {
                let connector = contents.connector(&self.settings)?;
                *current = Some(Current {
                    contents,
                    connector: connector.clone(),
                    failure: None,
                });
                Ok(connector)
            }
        });
        match (connector, &mut *current) {
            (Err(error), Some(current)) => {
                let cause = error_chain(&error);
                if current.failure.as_ref() != Some(&cause) {
                    tracing::error!(
                        cause,
                        "cannot reload the TLS files of the database, the earlier contents stay in force"
                    );
                    current.failure = Some(cause);
                }
                Ok(current.connector.clone())
            }
            (connector, _) => connector,
        }
    }

    /// Returns the last connector, without a look at the files.
    pub(super) fn last_connector(&self) -> Option<MakeRustlsConnect> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|it| it.connector.clone())
    }
}

/// Fails if other accounts can read a key, as libpq does. A key of root may be readable for its group.
fn require_closed(key: &Path) -> Result<(), TlsFilesError> {
    // A missing file is reported by reading it.
    let Ok(metadata) = std::fs::metadata(key) else {
        return Ok(());
    };
    let forbidden = match metadata.uid() {
        0 => 0o037,
        _ => 0o077,
    };
    match metadata.mode() & forbidden {
        0 => Ok(()),
        _ => Err(TlsFilesError::OpenKey(key.to_owned())),
    }
}

impl Contents {
    fn read(settings: &TlsSettings, last: Option<&Contents>) -> Result<Self, TlsFilesError> {
        let roots = match &settings.roots {
            Roots::File(path) => Some(file_watch::read(path)?),
            Roots::None | Roots::System => None,
        };
        let client = match &settings.client {
            Some((certificate, key)) => {
                require_closed(key)?;
                Some((file_watch::read(certificate)?, file_watch::read(key)?))
            }
            None => None,
        };
        let is_recent = |at: &Instant| at.elapsed() < SYSTEM_ROOTS_LIFETIME;
        let last_read = last
            .and_then(|it| it.system_roots_read_at)
            .filter(is_recent);
        let is_system = settings.roots == Roots::System;
        Ok(Contents {
            roots,
            client,
            system_roots_read_at: is_system.then(|| last_read.unwrap_or_else(Instant::now)),
        })
    }

    fn connector(&self, settings: &TlsSettings) -> Result<MakeRustlsConnect, TlsFilesError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsFilesError::Client)?;
        let builder = match self.roots(settings)? {
            Some(roots) if settings.mode == SslMode::VerifyFull => {
                builder.with_root_certificates(roots)
            }
            roots => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyHost { roots, provider })),
        };
        let mut config = match (&self.client, &settings.client) {
            (Some((certificate, key)), Some((certificate_path, key_path))) => {
                let certificates = certificates(certificate, certificate_path)?;
                let key = private_key(key, key_path)?;
                builder
                    .with_client_auth_cert(certificates, key)
                    .map_err(TlsFilesError::Client)?
            }
            _ => builder.with_no_client_auth(),
        };
        if settings.is_direct {
            config.alpn_protocols.push(ALPN.to_vec());
        }
        Ok(MakeRustlsConnect::new(config))
    }

    fn roots(&self, settings: &TlsSettings) -> Result<Option<RootCertStore>, TlsFilesError> {
        let certificates = match (&settings.roots, &self.roots) {
            (Roots::File(path), Some(contents)) => certificates(contents, path)?,
            (Roots::System, _) => rustls_native_certs::load_native_certs().certs,
            _ => return Ok(None),
        };
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates);
        match added {
            0 => Err(TlsFilesError::NoRoots),
            _ => Ok(Some(roots)),
        }
    }
}
