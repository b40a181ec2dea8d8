//! Settings of TLS and of client certificates.

use std::path::PathBuf;

use clap::Args;

use super::ConfigErrors;
use crate::rpc::transport::tls::TlsFiles;

/// TLS, and client certificates in place of tokens.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsSettings {
    /// Serve TLS with this certificate, followed by its intermediate certificates, as PEM. This and
    /// the other TLS files are read again when they change.
    #[arg(long, env = "BRIDGEBOOK_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: Option<PathBuf>,

    /// Read the private key of the certificate from this file, as PEM.
    #[arg(long, env = "BRIDGEBOOK_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// Accept client certificates that these root certificates have signed, as PEM. A certificate
    /// that another root has signed is rejected; a client without one presents a token.
    #[arg(long, env = "BRIDGEBOOK_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,

    /// Map client certificates to tokens with this file. Each line has the id of a token and the
    /// subject of a certificate: 0192f0c1-7a5b-7cc3-98a1-52f3c0de4a11 CN=node-7,O=Team A
    #[arg(long, env = "BRIDGEBOOK_TLS_CLIENT_TOKENS", value_name = "FILE")]
    tls_client_tokens: Option<PathBuf>,
}

/// The files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, its key, and the roots of client certificates.
    pub files: TlsFiles,
    /// The file that maps client certificates to tokens.
    pub client_tokens: Option<PathBuf>,
}

impl TlsSettings {
    /// Checks which flags are set together.
    pub(super) fn check(self, errors: &mut ConfigErrors) -> Option<TlsConfig> {
        let (client_ca, client_tokens) = (self.tls_client_ca, self.tls_client_tokens);
        let for_clients = "--tls-client-ca and --tls-client-tokens";
        let missing = match (&self.tls_certificate, &self.tls_key) {
            (None, Some(_)) => Some(("--tls-certificate", "--tls-key")),
            (Some(_), None) => Some(("--tls-key", "--tls-certificate")),
            (None, None) if client_ca.is_some() || client_tokens.is_some() => {
                Some(("--tls-certificate", for_clients))
            }
            (Some(_), Some(_)) if client_ca.is_some() && client_tokens.is_none() => {
                Some(("--tls-client-tokens", "--tls-client-ca"))
            }
            (Some(_), Some(_)) if client_ca.is_none() && client_tokens.is_some() => {
                Some(("--tls-client-ca", "--tls-client-tokens"))
            }
            _ => None,
        };
        if let Some((flag, given)) = missing {
            errors.push(format!("{flag}: is missing; it is required with {given}"));
        }
        Some(TlsConfig {
            files: TlsFiles {
                certificate: self.tls_certificate?,
                key: self.tls_key?,
                client_ca,
            },
            client_tokens,
        })
    }
}
