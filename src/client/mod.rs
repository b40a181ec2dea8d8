//! The client side: what a node written in Rust needs beside the generated
//! clients. examples/rust/registry_node.rs is written with it.

pub mod bearer;
pub mod probe;
pub mod retry;

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

/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// How long one attempt of a call may take; longer than the server needs to find
/// out that its database is away (2 to 4 s).
const CALL_PATIENCE: Duration = Duration::from_secs(10);
/// How often the other end is asked whether it is still there, and how long it
/// has for an answer: a host that died without a word is noticed within 30 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(10);

/// How to reach the service at `address`: a host and a port, after `https://` where
/// it has TLS. Its certificate has to be signed by a root that this machine trusts;
/// [`Endpoint::tls_config`] takes others.
///
/// # Errors
/// If the address is none.
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
        .connect_timeout(CONNECT_PATIENCE)
        .timeout(CALL_PATIENCE)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_PATIENCE)
        // A node is silent between two heartbeats; the next one should not find a dead link.
        .keep_alive_while_idle(true))
}

/// Connects to the service at `address`, see [`endpoint`].
///
/// # Errors
/// If the address is none, or nobody listens there.
pub async fn connect(address: &str) -> Result<Client, Error> {
    Ok(Client::new(endpoint(address)?.connect().await?))
}

/// Connects when the first call is made; for nodes that may start before the
/// service does. A connection that was lost is made anew in either case.
///
/// # Errors
/// If the address is none.
pub fn connect_lazily(address: &str) -> Result<Client, Error> {
    Ok(Client::new(endpoint(address)?.connect_lazy()))
}

/// A channel on which every call shows a token, if there is one.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// A connection to bridgebook. A clone shares it.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Authorized,
}

impl Client {
    /// A client on a channel that is there already.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Client {
            channel: InterceptedService::new(channel, Bearer::default()),
        }
    }

    /// A client whose calls show a credential, `bb_<id>_<secret>`.
    ///
    /// # Errors
    /// If it has characters that no header may have.
    pub fn with_token(channel: Channel, credential: &str) -> Result<Self, InvalidMetadataValue> {
        Ok(Client {
            channel: InterceptedService::new(channel, Bearer::new(credential)?),
        })
    }

    /// Workflows, their steps and stamps.
    #[must_use]
    pub fn workflows(&self) -> WorkflowServiceClient<Authorized> {
        WorkflowServiceClient::new(self.channel.clone())
    }

    /// State machines, entities and the journal.
    #[must_use]
    pub fn fsm(&self) -> FsmServiceClient<Authorized> {
        FsmServiceClient::new(self.channel.clone())
    }

    /// What reducers have aggregated.
    #[must_use]
    pub fn bridges(&self) -> BridgeStateServiceClient<Authorized> {
        BridgeStateServiceClient::new(self.channel.clone())
    }

    /// The nodes.
    #[must_use]
    pub fn registry(&self) -> RegistryServiceClient<Authorized> {
        RegistryServiceClient::new(self.channel.clone())
    }

    /// The whole, for its operator.
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
