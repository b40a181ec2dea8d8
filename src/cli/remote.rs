//! Connects commands to a running service.

use std::{fmt, net::IpAddr, path::PathBuf};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use tonic::transport::{Certificate, ClientTlsConfig};

use super::CliError;
use crate::{
    client::{self, Client},
    config::ConfigErrors,
    util::{error_chain::error_chain, file_watch},
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
    /// Send the credential without TLS, over a network that is trusted. Needless for an address of this
    /// machine.
    #[arg(long, env = "BRIDGEBOOK_PLAINTEXT", conflicts_with = "tls_ca")]
    plaintext: bool,
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

/// Returns the error of a flag, with which the program exits as after an invalid command line.
fn invalid(flag: &str, error: impl fmt::Display) -> CliError {
    ConfigErrors::from(vec![format!("{flag}: {error}")]).into()
}

/// Returns whether an address has a host and a port, and nothing after them.
fn has_host_and_port(address: &str) -> bool {
    let authority = address.rsplit("://").next().unwrap_or_default();
    let authority = authority.trim_end_matches('/');
    authority.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// Returns whether an address is one of this machine.
fn is_local(address: &str) -> bool {
    let authority = address.rsplit("://").next().unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    let is_loopback = |address: IpAddr| address.is_loopback();
    host == "localhost" || host.parse().is_ok_and(is_loopback)
}

impl Remote {
    /// Connects to the service. Sends no credential that others can read.
    pub(super) async fn connect(self) -> Result<Client, CliError> {
        let unusable = || {
            let address = &self.address;
            let rule = "expected an address with a port, like localhost:50051";
            invalid("--address", format!("{rule}, got {address:?}"))
        };
        if !has_host_and_port(&self.address) {
            return Err(unusable());
        }
        let is_encrypted = self.tls.tls_ca.is_some();
        if self.token.is_some() && !is_encrypted && !self.plaintext && !is_local(&self.address) {
            let advice = "the credential would be sent without TLS; add --tls-ca, or --plaintext if \
                          the network is trusted";
            return Err(invalid("--token", advice));
        }
        let address = self.address.trim_start_matches("https://");
        let endpoint = match self.tls.config(address)? {
            Some(tls) => client::endpoint(&format!("https://{address}"))
                .map_err(|_| unusable())?
                .tls_config(tls)
                .map_err(|error| invalid("--tls-ca, --tls-name", error_chain(&error)))?,
            None => client::endpoint(&self.address).map_err(|_| unusable())?,
        };
        let connected = endpoint.connect().await;
        let channel = connected.map_err(|source| CliError::Connect {
            address: self.address.clone(),
            source,
        })?;
        match self.token {
            Some(token) => Client::with_token(channel, token.expose_secret())
                .map_err(|_| invalid("--token", "expected bb_<id>_<secret>")),
            None => Ok(Client::new(channel)),
        }
    }
}
