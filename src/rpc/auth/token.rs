//! Tokens: what they are good for, and until when.

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
        namespace::Namespace,
        page::{PageRequest, PageRow, ROW_BYTES, TimePosition},
        role::Role,
    },
};

/// What ends a pattern that stands for every namespace with its beginning.
pub const WILDCARD: char = '*';

/// Which namespaces a token holds for: exact ones, or beginnings that end in `*`.
#[derive(Debug, Clone, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Array<Nullable<Text>>)]
pub struct NamespacePatterns(Vec<String>);

impl NamespacePatterns {
    /// All namespaces.
    #[must_use]
    pub fn all() -> Self {
        NamespacePatterns(vec![WILDCARD.to_string()])
    }

    /// Takes patterns, which have been checked.
    #[must_use]
    pub fn from_valid(patterns: Vec<String>) -> Self {
        NamespacePatterns(patterns)
    }

    /// The patterns.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        &self.0
    }

    /// Whether a namespace is among them.
    #[must_use]
    pub fn includes(&self, namespace: &Namespace) -> bool {
        let namespace = namespace.as_str();
        let mut patterns = self.0.iter();
        patterns.any(|pattern| match pattern.strip_suffix(WILDCARD) {
            Some(beginning) => namespace.starts_with(beginning),
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
    pub role: Role,
    pub namespaces: NamespacePatterns,
    pub secret_sha256: SecretDigest,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

impl Token {
    /// Makes sure that it is good at a time.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if it is not any more.
    pub fn require_good(&self, at: DateTime<Utc>) -> Result<()> {
        if self.revoked_at.is_some() {
            return Err(Error::Unauthenticated(CredentialError::Revoked));
        }
        match self.expires_at {
            Some(end) if end <= at => Err(Error::Unauthenticated(CredentialError::Expired)),
            _ => Ok(()),
        }
    }

    /// Makes sure that a secret is its own.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if it is not.
    pub fn require_secret(&self, secret: &Secret) -> Result<()> {
        match self.secret_sha256.is_of(secret) {
            true => Ok(()),
            false => Err(Error::Unauthenticated(CredentialError::Unknown)),
        }
    }
}

/// A token to create.
#[derive(Debug)]
pub struct NewToken {
    /// Its id, which the caller may have chosen.
    pub id: TokenId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub namespaces: NamespacePatterns,
    /// Until when; `None` for ever.
    pub expires_at: Option<DateTime<Utc>>,
    /// What only its holder is going to know.
    pub secret: Secret,
}

impl NewToken {
    /// What its holder is going to show.
    #[must_use]
    pub fn credential(&self) -> String {
        credential::reveal(self.id, &self.secret)
    }
}

/// Which tokens to list.
#[derive(Debug)]
pub struct TokenFilter {
    /// Whether only those that are good now.
    pub active_only: bool,
    /// Which page.
    pub page: PageRequest<TimePosition>,
}

/// Ends a token.
#[derive(Debug)]
pub struct Revocation {
    /// Which one.
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
    fn a_namespace_is_covered_exactly_or_by_its_beginning() {
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
            let coverage = NamespacePatterns::from_valid(vec!["other".into(), pattern.into()]);
            let namespace = Namespace::admitted("team-a".to_owned());
            assert_eq!(coverage.includes(&namespace), covered, "{pattern}");
        }
    }

    #[test]
    fn roles_are_in_the_order_of_what_they_may_do() {
        assert!(Role::Reader < Role::Writer && Role::Writer < Role::Admin);
    }
}
