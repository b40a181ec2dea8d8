//! TLS 1.2 and 1.3 with rustls: the server certificate, and client certificates.
//!
//! The files are polled, because tools that renew certificates replace them without
//! notice. New connections use the new files.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::CertificateDer,
        server::{VerifierBuilderError, WebPkiClientVerifier},
    },
    server::TlsStream,
};
use x509_cert::{Certificate, der::Decode};

use crate::util::{
    file_watch::{self, ReadError},
    pem::{PemError, certificates, private_key},
};

/// The files of TLS, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server certificate and its intermediate certificates.
    pub certificate: PathBuf,
    /// The private key of the server certificate.
    pub key: PathBuf,
    /// The roots that sign client certificates; `None` to request no client certificate.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file has the wrong content.
    #[error(transparent)]
    Content(#[from] PemError),
    /// The certificate or the key is invalid, or they do not match.
    #[error("the TLS certificate and its private key are invalid or do not match")]
    Certificate(#[source] rustls::Error),
    /// The roots of client certificates are invalid.
    #[error("the roots of client certificates (--tls-client-ca) are invalid")]
    ClientCa(#[source] VerifierBuilderError),
}

/// Accepts TLS connections. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    current: Arc<RwLock<Current>>,
}

/// The configuration of new connections.
struct Current {
    config: Arc<ServerConfig>,
    /// Expiry of the server certificate, as time since 1970.
    expires_at: Duration,
    /// The contents of the files that `config` was made of.
    contents: Contents,
}

/// The contents of the files.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Loads the files.
    ///
    /// # Errors
    /// Every [`TlsError`].
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let current = files.read()?.into_current(files)?;
        Ok(Tls {
            current: Arc::new(RwLock::new(current)),
        })
    }

    /// Returns the expiry of the server certificate or of an intermediate one, whichever is
    /// earlier, as time since 1970.
    #[must_use]
    pub fn expires_at(&self) -> Duration {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).expires_at
    }

    /// Polls the files and applies their changes. Never completes.
    pub async fn watch(&self, files: &TlsFiles) {
        let apply = |contents: &Contents| {
            let current = contents.clone().into_current(files)?;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
            Ok(())
        };
        let read = {
            let files = files.clone();
            move || files.read()
        };
        let loaded = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            current.contents.clone()
        };
        file_watch::watch("TLS certificates", loaded, read, apply).await;
    }

    /// Performs the TLS handshake. Returns the subject of the client certificate, if the
    /// client presented one.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<String>)> {
        let config = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&current.config)
        };
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(|all| all.first());
        let subject = certificate.map(subject_of).transpose()?;
        Ok((stream, subject))
    }
}

/// Returns the subject of a certificate in the format of RFC 4514: `CN=node-7,O=Team A`.
fn subject_of(certificate: &CertificateDer<'_>) -> io::Result<String> {
    let certificate = Certificate::from_der(certificate).map_err(io::Error::other)?;
    Ok(certificate.tbs_certificate.subject.to_string())
}

/// Returns the expiry of a certificate, as time since 1970.
fn expiry_of(certificate: &CertificateDer<'_>) -> Option<Duration> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate.validity;
    Some(validity.not_after.to_unix_duration())
}

impl TlsFiles {
    fn read(&self) -> Result<Contents, TlsError> {
        let client_ca = self
            .client_ca
            .as_deref()
            .map(file_watch::read)
            .transpose()?;
        Ok(Contents {
            certificate: file_watch::read(&self.certificate)?,
            key: file_watch::read(&self.key)?,
            client_ca,
        })
    }
}

impl Contents {
    fn into_current(self, files: &TlsFiles) -> Result<Current, TlsError> {
        let certificates = certificates(&self.certificate, &files.certificate)?;
        let expires_at = certificates.iter().filter_map(expiry_of).min();
        let expires_at = expires_at.unwrap_or_default();
        if UNIX_EPOCH + expires_at < SystemTime::now() {
            tracing::warn!(path = %files.certificate.display(), "TLS certificate has expired");
        }
        let config = Arc::new(self.config(files, certificates)?);
        Ok(Current {
            config,
            expires_at,
            contents: self,
        })
    }

    fn config(
        &self,
        files: &TlsFiles,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<ServerConfig, TlsError> {
        let key = private_key(&self.key, &files.key)?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Certificate)?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(roots), Some(path)) => {
                builder.with_client_cert_verifier(client_verifier(roots, path)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(certificates, key)
            .map_err(TlsError::Certificate)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// Makes the verifier of client certificates. A client may present none, because it can
/// send a credential instead.
fn client_verifier(
    pem: &[u8],
    path: &Path,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, path)? {
        roots.add(certificate).map_err(TlsError::Certificate)?;
    }
    let provider = Arc::new(ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map(|verifier| verifier as _)
        .map_err(TlsError::ClientCa)
}
