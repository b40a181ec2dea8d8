//! TLS 1.2 and 1.3 with rustls: our certificate, and those of clients.
//!
//! The files are read again every few seconds, as those who renew certificates replace
//! them without telling anybody. What was changed holds for new connections.

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
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{VerifierBuilderError, WebPkiClientVerifier},
    },
    server::TlsStream,
};
use x509_cert::{Certificate, der::Decode};

use crate::util::file_watch::{self, ReadError};

/// Where the certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate and those between it and its root, PEM.
    pub certificate: PathBuf,
    /// The key of our certificate, PEM.
    pub key: PathBuf,
    /// The roots of clients' certificates, PEM; none to ask clients for none.
    pub client_ca: Option<PathBuf>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file does not hold what it should.
    #[error("{} holds no {what} as PEM", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Certificate and key are of no use, or not of each other.
    #[error("the certificate and the key do not work")]
    Certificate(#[source] rustls::Error),
    /// The roots of clients' certificates are of no use.
    #[error("the roots of clients' certificates do not work")]
    ClientCa(#[source] VerifierBuilderError),
}

/// Makes connections private. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    current: Arc<RwLock<Current>>,
}

/// What holds for new connections.
struct Current {
    config: Arc<ServerConfig>,
    /// When our certificate ends, since 1970.
    ends: Duration,
}

/// What the files held.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Every [`TlsError`].
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let current = files.read()?.to_current(files)?;
        Ok(Tls {
            current: Arc::new(RwLock::new(current)),
        })
    }

    /// When our certificate ends, since 1970.
    #[must_use]
    pub fn ends(&self) -> Duration {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).ends
    }

    /// Reads the files again and again, for ever.
    pub async fn watch(&self, files: &TlsFiles) {
        let apply = |contents: &Contents| {
            let current = contents.to_current(files)?;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
            Ok(())
        };
        let read = {
            let files = files.clone();
            move || files.read()
        };
        file_watch::watch("the certificates", read, apply).await;
    }

    /// Agrees with a client on TLS; answers the subject of its certificate, too, if
    /// it showed one.
    ///
    /// # Errors
    /// Whatever they do not agree on.
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

/// The subject of a certificate as RFC 4514 writes it: `CN=node-7,O=Team A`.
fn subject_of(certificate: &CertificateDer<'_>) -> io::Result<String> {
    let certificate = Certificate::from_der(certificate).map_err(io::Error::other)?;
    Ok(certificate.tbs_certificate().subject().to_string())
}

/// When a certificate ends, since 1970.
fn end_of(certificate: &CertificateDer<'_>) -> Option<Duration> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
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
    fn to_current(&self, files: &TlsFiles) -> Result<Current, TlsError> {
        let certificates = certificates(&self.certificate, &files.certificate)?;
        let ends = certificates.iter().filter_map(end_of).min();
        let ends = ends.unwrap_or_default();
        if UNIX_EPOCH + ends < SystemTime::now() {
            tracing::warn!(path = %files.certificate.display(), "the certificate has expired");
        }
        let config = Arc::new(self.config(files, certificates)?);
        Ok(Current { config, ends })
    }

    fn config(
        &self,
        files: &TlsFiles,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<ServerConfig, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError::Content {
            path: files.key.clone(),
            what: "private key",
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Certificate)?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(roots), Some(path)) => builder.with_client_cert_verifier(verifier(roots, path)?),
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(certificates, key)
            .map_err(TlsError::Certificate)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.ok().filter(|all| !all.is_empty());
    certificates.ok_or_else(|| TlsError::Content {
        path: path.to_owned(),
        what: "certificate",
    })
}

/// Checks the certificates of those clients that show one; the others need a credential.
fn verifier(
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
