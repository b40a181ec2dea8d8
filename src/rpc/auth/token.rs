//! Tokens: their role, the namespaces that they cover, and their validity.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    prelude::*,
    serialize::{self, Output, ToSql},
    sql_types::{Array, Nullable, Text},
};

use super::credential::{self, Secret, SecretDigest};
use crate::{
    db::schema::api_tokens,
    domain::{
        error::{CredentialError, Error, Result},
        id::TokenId,
        namespace::{Namespace, WILDCARD},
        page::{PageRequest, PageRow, ROW_BYTES, TimePosition},
        role::Role,
        text_enum::Stored,
    },
};

/// The namespaces that a token covers: exact names, and prefixes that end in `*`.
#[derive(Debug, Clone, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Array<Nullable<Text>>)]
pub struct NamespacePatterns(Vec<String>);

impl NamespacePatterns {
    /// Returns the patterns that cover all namespaces.
    #[must_use]
    pub fn all() -> Self {
        NamespacePatterns(vec![WILDCARD.to_string()])
    }

    /// Wraps patterns that the request's validation has accepted.
    #[must_use]
    pub fn from_valid(patterns: Vec<String>) -> Self {
        NamespacePatterns(patterns)
    }

    /// Returns the patterns.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        &self.0
    }

    /// Returns whether a pattern matches a namespace.
    #[must_use]
    pub fn cover(&self, namespace: &Namespace) -> bool {
        let namespace = namespace.as_str();
        let mut patterns = self.0.iter();
        patterns.any(|pattern| match pattern.strip_suffix(WILDCARD) {
            Some(prefix) => namespace.starts_with(prefix),
            None => namespace == pattern,
        })
    }
}

impl ToSql<Array<Nullable<Text>>, Pg> for NamespacePatterns {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Array<Text>, Pg>::to_sql(&self.0, out)
    }
}

impl FromSql<Array<Nullable<Text>>, Pg> for NamespacePatterns {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let patterns: Vec<String> = FromSql::<Array<Text>, Pg>::from_sql(value)?;
        Ok(NamespacePatterns(patterns))
    }
}

/// A token as it is stored.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = api_tokens)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct Token {
    pub id: TokenId,
    pub name: String,
    pub role: Stored<Role>,
    pub namespaces: NamespacePatterns,
    pub secret_sha256: SecretDigest,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

impl Token {
    /// Checks that the token is valid at a time.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if it is revoked or has expired.
    pub fn require_valid(&self, at: DateTime<Utc>) -> Result<()> {
        if self.revoked_at.is_some() {
            return Err(Error::Unauthenticated(CredentialError::Revoked));
        }
        match self.expires_at {
            Some(end) if end <= at => Err(Error::Unauthenticated(CredentialError::Expired)),
            _ => Ok(()),
        }
    }

    /// Checks that a secret belongs to the token.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if it does not.
    pub fn require_secret(&self, secret: &Secret) -> Result<()> {
        match self.secret_sha256.is_of(secret) {
            true => Ok(()),
            false => Err(Error::Unauthenticated(CredentialError::Unknown)),
        }
    }
}

/// The request to create a token.
#[derive(Debug)]
pub struct TokenRequest {
    /// The id, which the caller may have chosen.
    pub id: TokenId,
    /// The name, for people.
    pub name: String,
    /// The role.
    pub role: Role,
    /// The namespaces that the token covers.
    pub namespaces: NamespacePatterns,
    /// The end of its validity; `None` for no end.
    pub expires_at: Option<DateTime<Utc>>,
}

impl TokenRequest {
    /// Returns the token to create, with a new secret.
    ///
    /// # Errors
    /// [`Error::Internal`] if the operating system provides no random numbers.
    pub fn with_secret(self) -> Result<NewToken> {
        let secret = Secret::generate().map_err(|error| Error::Internal(Arc::new(error)))?;
        Ok(NewToken {
            id: self.id,
            name: self.name,
            role: self.role,
            namespaces: self.namespaces,
            expires_at: self.expires_at,
            secret,
        })
    }
}

/// A token to create.
#[derive(Debug)]
pub struct NewToken {
    /// The id, which the caller may have chosen.
    pub id: TokenId,
    /// The name, for people.
    pub name: String,
    /// The role.
    pub role: Role,
    /// The namespaces that the token covers.
    pub namespaces: NamespacePatterns,
    /// The end of its validity; `None` for no end.
    pub expires_at: Option<DateTime<Utc>>,
    /// The secret, of which only a digest is stored.
    pub secret: Secret,
}

impl NewToken {
    /// Returns the credential for the token's holder. It contains the secret.
    #[must_use]
    pub fn credential(&self) -> String {
        credential::reveal(self.id, &self.secret)
    }
}

/// The tokens to list.
#[derive(Debug)]
pub struct TokenFilter {
    /// Whether to list only tokens that are valid now.
    pub active_only: bool,
    /// The page.
    pub page: PageRequest<TimePosition>,
}

/// The revocation of a token.
#[derive(Debug)]
pub struct Revocation {
    /// The token.
    pub id: TokenId,
}

impl PageRow for Token {
    type Position = TimePosition;

    fn position(&self) -> TimePosition {
        (self.created_at, self.id.0)
    }

    fn size(&self) -> usize {
        let patterns = self.namespaces.patterns().iter();
        ROW_BYTES + self.name.len() + patterns.map(String::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_exactly_or_by_prefix() {
        for (pattern, covered) in [
            ("team-a", true),
            ("team-*", true),
            ("*", true),
            ("team-a*", true),
            ("team-ab*", false),
            ("team", false),
            ("team-", false),
            ("Team-a", false),
            ("team-b", false),
        ] {
            let patterns = NamespacePatterns::from_valid(vec!["other".into(), pattern.into()]);
            let namespace = Namespace::admitted("team-a".to_owned());
            assert_eq!(patterns.cover(&namespace), covered, "{pattern}");
        }
    }

    #[test]
    fn roles_are_ordered_by_their_permissions() {
        assert!(Role::Reader < Role::Writer && Role::Writer < Role::Admin);
    }
}
