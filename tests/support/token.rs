//! Tokens, made straight on the database as `bridgebook token create` does.

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

/// A token and what its holder shows.
pub struct Issued {
    pub id: String,
    pub credential: String,
}

impl Issued {
    /// A client that shows it.
    pub fn client(&self, channel: &Channel) -> Client {
        Client::with_token(channel.clone(), &self.credential).unwrap()
    }
}

impl App {
    /// A service that asks for tokens.
    pub async fn guarded() -> App {
        App::start_with(|config| config.auth = Auth::Tokens).await
    }

    /// Makes a token.
    pub async fn issue(&self, role: Role, namespaces: &[&str]) -> Issued {
        self.issue_until(role, namespaces, None).await
    }

    /// Ends a token.
    pub async fn revoke(&self, token: &Issued) {
        let id = TokenId(token.id.parse().unwrap());
        let mut connection = self.schema.connect().await;
        let revoked = Revocation { id }.run(&mut connection).await;
        revoked.unwrap().unwrap();
    }

    /// Makes a token that ends at a time.
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
