//! Tokens, created directly in the database as `bridgebook token create` does.

use bridgebook::{
    client::Client,
    config::Auth,
    db::Query,
    domain::{id::TokenId, role::Role},
    rpc::auth::{
        credential::Secret,
        token::{NamespacePatterns, NewToken, Revocation},
    },
};
use chrono::{DateTime, Utc};
use tonic::transport::Channel;

use super::App;

/// A token's id and credential.
pub struct Issued {
    pub id: String,
    pub credential: String,
}

impl Issued {
    /// Returns a client with the token.
    pub fn client(&self, channel: &Channel) -> Client {
        Client::with_token(channel.clone(), &self.credential).unwrap()
    }
}

impl App {
    /// Starts a service that requires tokens.
    pub async fn guarded() -> App {
        App::start_with(|config| config.auth = Auth::Tokens).await
    }

    /// Creates a token.
    pub async fn issue(&self, role: Role, namespaces: &[&str]) -> Issued {
        self.issue_until(role, namespaces, None).await
    }

    /// Revokes a token.
    pub async fn revoke(&self, token: &Issued) {
        let id = TokenId(token.id.parse().unwrap());
        let mut connection = self.schema.connect().await;
        let revoked = Revocation { id }.run(&mut connection).await;
        revoked.unwrap().unwrap();
    }

    /// Creates a token with an expiry time.
    pub async fn issue_until(
        &self,
        role: Role,
        namespaces: &[&str],
        expires_at: Option<DateTime<Utc>>,
    ) -> Issued {
        let wanted = NewToken {
            id: TokenId::generate(),
            name: "test".into(),
            role,
            namespaces: NamespacePatterns::from_valid(
                namespaces.iter().map(ToString::to_string).collect(),
            ),
            expires_at,
            secret: Secret::generate().unwrap(),
        };
        let mut connection = self.schema.connect().await;
        let token = wanted.run(&mut connection).await.unwrap().unwrap();
        Issued {
            id: token.id.to_string(),
            credential: wanted.credential(),
        }
    }
}
