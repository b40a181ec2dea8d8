//! How commands reach a running service.

use std::path::PathBuf;

use clap::Args;
use tonic::transport::{Certificate, ClientTlsConfig};

use super::CliError;
use crate::{
    client::{self, Client},
    util::file_watch,
};

/// A service and a token for it.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// The address of the service.
    #[arg(long, env = "BRIDGEBOOK_LISTEN", default_value = "127.0.0.1:50051")]
    address: String,
    /// The credential of a token, as it was shown when the token was created.
    #[arg(
        long,
        env = "BRIDGEBOOK_TOKEN",
        hide_env_values = true,
        value_name = "CREDENTIAL"
    )]
    token: Option<String>,
    #[command(flatten)]
    tls: TlsArguments,
}

/// How to know the service.
#[derive(Debug, Args)]
pub(super) struct TlsArguments {
    /// Speak TLS, and trust what these certificates have signed, as PEM.
    #[arg(long, env = "BRIDGEBOOK_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The name in the service's certificate. Default: the host of the address.
    #[arg(
        long,
        env = "BRIDGEBOOK_TLS_NAME",
        value_name = "NAME",
        requires = "tls_ca"
    )]
    tls_name: Option<String>,
}

impl TlsArguments {
    /// How to speak TLS, if it is to be spoken.
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
            Some(token) => Client::with_token(channel, &token)
                .map_err(|_| vec!["--token: is no credential".to_owned()].into()),
            None => Ok(Client::new(channel)),
        }
    }
}
