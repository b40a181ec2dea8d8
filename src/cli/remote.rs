//! Connects commands to a running service.

use std::path::PathBuf;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use tonic::transport::{Certificate, ClientTlsConfig};

use super::CliError;
use crate::{
    client::{self, Client},
    config::ConfigErrors,
    util::file_watch,
};

/// The address of a service and the credential for it.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// The address of the service, as host and port.
    #[arg(long, env = "BRIDGEBOOK_LISTEN", default_value = "127.0.0.1:50051")]
    address: String,
    /// Send this credential, as `token create` printed it: bb_<id>_<secret>.
    #[arg(long, env = "BRIDGEBOOK_TOKEN", hide_env_values = true, value_name = "CREDENTIAL")]
    token: Option<SecretString>,
    #[command(flatten)]
    tls: TlsArguments,
}

/// How to verify the certificate of the service.
#[derive(Debug, Args)]
pub(super) struct TlsArguments {
    /// Connect with TLS and trust the root certificates in this file, as PEM.
    #[arg(long, env = "BRIDGEBOOK_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Expect this name in the certificate of the service. Default: the host of the address.
    #[arg(long, env = "BRIDGEBOOK_TLS_NAME", value_name = "NAME", requires = "tls_ca")]
    tls_name: Option<String>,
}

impl TlsArguments {
    /// Returns the TLS settings of a client, or `None` without --tls-ca.
    pub(super) fn config(self, address: &str) -> Result<Option<ClientTlsConfig>, CliError> {
        let Some(path) = self.tls_ca else {
            return Ok(None);
        };
        let ca = Certificate::from_pem(file_watch::read(&path)?);
        let config = ClientTlsConfig::new().ca_certificate(ca);
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let name = self.tls_name.unwrap_or_else(|| host.to_owned());
        Ok(Some(config.domain_name(name)))
    }
}

impl Remote {
    /// Connects to the service.
    pub(super) async fn connect(self) -> Result<Client, CliError> {
        let address = self.address.trim_start_matches("https://");
        let endpoint = match self.tls.config(address)? {
            Some(tls) => client::endpoint(&format!("https://{address}"))?.tls_config(tls)?,
            None => client::endpoint(&self.address)?,
        };
        let channel = endpoint.connect().await?;
        match self.token {
            Some(token) => Ok(Client::with_token(channel, token.expose_secret())
                .map_err(|_| vec!["--token: expected bb_<id>_<secret>".to_owned()])
                .map_err(ConfigErrors::from)?),
            None => Ok(Client::new(channel)),
        }
    }
}
