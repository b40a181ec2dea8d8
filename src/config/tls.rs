//! Settings of TLS, and of certificates in place of tokens.

use std::path::PathBuf;

use clap::Args;

use crate::rpc::transport::tls::TlsFiles;

/// TLS, and who may show a certificate in place of a token.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsSettings {
    /// Our certificate and those between it and its root, as PEM. All these files are
    /// read again when they change.
    #[arg(long, env = "BRIDGEBOOK_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: Option<PathBuf>,

    /// The key of our certificate, as PEM.
    #[arg(long, env = "BRIDGEBOOK_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// The roots of clients' certificates, as PEM. Clients may then show one; what
    /// others than these have signed is refused.
    #[arg(long, env = "BRIDGEBOOK_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,

    /// Which tokens clients' certificates stand for: on each line the id of a token
    /// and the subject of a certificate, as in
    /// 0192f0c1-7a5b-7cc3-98a1-52f3c0de4a11 CN=node-7,O=Team A
    #[arg(long, env = "BRIDGEBOOK_TLS_CLIENT_TOKENS", value_name = "FILE")]
    tls_client_tokens: Option<PathBuf>,
}

/// Where the certificates are, and what those of clients stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificates.
    pub files: TlsFiles,
    /// Which tokens clients' certificates stand for.
    pub client_tokens: Option<PathBuf>,
}

impl TlsSettings {
    /// Checks them.
    pub(super) fn check(self, faults: &mut Vec<String>) -> Option<TlsConfig> {
        let (certificate, key) = match (self.tls_certificate, self.tls_key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => {
                if self.tls_client_ca.is_some() || self.tls_client_tokens.is_some() {
                    faults.push("--tls-certificate: is missing".to_owned());
                }
                return None;
            }
            (None, _) => {
                faults.push("--tls-certificate: is missing, there is only its key".to_owned());
                return None;
            }
            (_, None) => {
                faults.push("--tls-key: is missing, there is only its certificate".to_owned());
                return None;
            }
        };
        if self.tls_client_tokens.is_some() && self.tls_client_ca.is_none() {
            faults.push("--tls-client-ca: is missing, so no client shows a certificate".to_owned());
        }
        if self.tls_client_ca.is_some() && self.tls_client_tokens.is_none() {
            faults.push(
                "--tls-client-tokens: is missing, so no certificate stands for anybody".to_owned(),
            );
        }
        Some(TlsConfig {
            files: TlsFiles {
                certificate,
                key,
                client_ca: self.tls_client_ca,
            },
            client_tokens: self.tls_client_tokens,
        })
    }
}
