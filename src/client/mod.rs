//! The Rust client: connections, credentials, retries and watches around the generated clients.
//! examples/rust uses it.

pub mod bearer;
pub mod probe;
pub mod retry;
pub mod watch;

use std::time::Duration;

use tonic::{
    metadata::errors::InvalidMetadataValue,
    service::interceptor::InterceptedService,
    transport::{Channel, ClientTlsConfig, Endpoint, Error},
};

use self::bearer::Bearer;
use crate::proto::v1::{
    admin_service_client::AdminServiceClient,
    bridge_state_service_client::BridgeStateServiceClient, fsm_service_client::FsmServiceClient,
    registry_service_client::RegistryServiceClient, server_service_client::ServerServiceClient,
    workflow_service_client::WorkflowServiceClient,
};

/// The timeout for establishing a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The timeout of one attempt of a call. Longer than the server needs to detect an outage of its
/// database (2 to 4 s).
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval and the timeout of keepalive pings. A dead host is detected within 30 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the endpoint of the service at `address`: host and port, with `https://` for TLS. The
/// certificate must be signed by a root that this machine trusts; [`Endpoint::tls_config`] sets
/// others.
///
/// # Errors
/// If the address is invalid.
pub fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let url = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let mut endpoint = Endpoint::from_shared(url)?;
    if endpoint.uri().scheme_str() == Some("https") {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?;
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        // A node makes no call between two heartbeats. Pings detect a dead connection before the
        // next one.
        .keep_alive_while_idle(true))
}

/// Connects to the service at `address`, see [`endpoint`].
///
/// # Errors
/// If the address is invalid or the service is unreachable.
pub async fn connect(address: &str) -> Result<Client, Error> {
    Ok(Client::new(endpoint(address)?.connect().await?))
}

/// Connects with the first call, for nodes that may start before the service. A lost connection is
/// replaced, as with [`connect`].
///
/// # Errors
/// If the address is invalid.
pub fn connect_lazily(address: &str) -> Result<Client, Error> {
    Ok(Client::new(endpoint(address)?.connect_lazy()))
}

/// A channel that adds the credential, if there is one, to every call.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// A connection to bridgebook. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Authorized,
}

impl Client {
    /// Creates a client on an existing channel.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Client {
            channel: InterceptedService::new(channel, Bearer::default()),
        }
    }

    /// Creates a client whose calls carry a credential, `bb_<id>_<secret>`.
    ///
    /// # Errors
    /// If the credential contains characters that are invalid in a header.
    pub fn with_token(channel: Channel, credential: &str) -> Result<Self, InvalidMetadataValue> {
        Ok(Client {
            channel: InterceptedService::new(channel, Bearer::new(credential)?),
        })
    }

    /// Returns a client for workflows, steps and stamps.
    #[must_use]
    pub fn workflows(&self) -> WorkflowServiceClient<Authorized> {
        WorkflowServiceClient::new(self.channel.clone())
    }

    /// Returns a client for state machines, entities and the journal.
    #[must_use]
    pub fn fsm(&self) -> FsmServiceClient<Authorized> {
        FsmServiceClient::new(self.channel.clone())
    }

    /// Returns a client for the aggregates of bridges.
    #[must_use]
    pub fn bridges(&self) -> BridgeStateServiceClient<Authorized> {
        BridgeStateServiceClient::new(self.channel.clone())
    }

    /// Returns a client for the registry of nodes.
    #[must_use]
    pub fn registry(&self) -> RegistryServiceClient<Authorized> {
        RegistryServiceClient::new(self.channel.clone())
    }

    /// Returns a client for operators.
    #[must_use]
    pub fn admin(&self) -> AdminServiceClient<Authorized> {
        AdminServiceClient::new(self.channel.clone())
    }

    /// Returns the client of the server's description.
    #[must_use]
    pub fn server(&self) -> ServerServiceClient<Authorized> {
        ServerServiceClient::new(self.channel.clone())
    }
}
