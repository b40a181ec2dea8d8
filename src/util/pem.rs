//! Certificates and keys in PEM.

use std::path::{Path, PathBuf};

use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// A file has the wrong content.
#[derive(Debug, thiserror::Error)]
#[error("{} contains no {what} in PEM format", path.display())]
pub struct PemError {
    path: PathBuf,
    what: &'static str,
}

impl PemError {
    fn new(path: &Path, what: &'static str) -> Self {
        PemError {
            path: path.to_owned(),
            what,
        }
    }
}

/// Parses the certificates of a file, of which there is at least one.
///
/// # Errors
/// If there is none, or one is invalid.
pub fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.ok().filter(|all| !all.is_empty());
    certificates.ok_or_else(|| PemError::new(path, "certificate"))
}

/// Parses the private key of a file, which must not be encrypted.
///
/// # Errors
/// If there is none.
pub fn private_key(pem: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let key = PrivateKeyDer::from_pem_slice(pem);
    key.map_err(|_| PemError::new(path, "unencrypted private key"))
}
