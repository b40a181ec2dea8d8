//! Probes the health of a service.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{net::lookup_host, time::timeout};
use tonic::transport::ClientTlsConfig;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::endpoint;

/// Timeout of the probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the service is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The address does not parse or resolve.
    #[error("expected an address with a port, like localhost:50051, got {address:?}")]
    Address {
        /// The address.
        address: String,
        /// Why it does not resolve.
        #[source]
        source: io::Error,
    },
    /// The connection failed.
    #[error("cannot connect")]
    Connect(#[from] tonic::transport::Error),
    /// There was no answer in time.
    #[error("no answer within {} s", PROBE_TIMEOUT.as_secs())]
    Timeout(#[from] tokio::time::error::Elapsed),
    /// The answer is an error.
    #[error("the service answered {}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    /// The service is not SERVING.
    #[error("the service is {0}")]
    NotServing(&'static str),
}

/// Checks that the service at `address`, a host and a port, is SERVING; over TLS if
/// `tls` says how.
///
/// # Errors
/// Every [`ProbeError`].
pub async fn probe(address: &str, tls: Option<ClientTlsConfig>) -> Result<(), ProbeError> {
    timeout(PROBE_TIMEOUT, check(address, tls)).await?
}

async fn check(address: &str, tls: Option<ClientTlsConfig>) -> Result<(), ProbeError> {
    let address = resolve(address)
        .await
        .map_err(|source| ProbeError::Address {
            address: address.to_owned(),
            source,
        })?;
    let endpoint = match tls {
        Some(tls) => endpoint(&format!("https://{address}"))?.tls_config(tls)?,
        None => endpoint(&address.to_string())?,
    };
    let mut client = HealthClient::new(endpoint.connect().await?);
    let answer = client.check(HealthCheckRequest::default()).await;
    let answer = answer.map_err(|status| ProbeError::Status(Box::new(status)))?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(ProbeError::NotServing(other.as_str_name())),
    }
}

/// Resolves an address; one of IPv4 first, because the service listens there by default.
async fn resolve(address: &str) -> io::Result<SocketAddr> {
    let addresses: Vec<_> = lookup_host(address).await?.collect();
    let ipv4 = addresses.iter().find(|address| address.is_ipv4());
    let address = ipv4.or(addresses.first()).copied();
    let mut address = address.ok_or(io::ErrorKind::NotFound)?;
    if address.ip().is_unspecified() {
        // A service that listens on all interfaces listens on loopback, too.
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}
