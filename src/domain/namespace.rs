//! Namespaces: the tenant that a request acts for.

use std::{fmt, time::Instant};

use diesel::{
    expression::AsExpression,
    pg::Pg,
    serialize::{self, Output, ToSql},
    sql_types::Text,
};

use super::id::TokenId;

/// The tenant that a request acts for. Every function of a store asks for one, so that
/// no query can forget whose rows it reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, AsExpression)]
#[diesel(sql_type = Text)]
pub struct Namespace(String);

/// Namespaces with this prefix belong to the service. Tenants may read some of them, and
/// only the service writes there.
pub const RESERVED_PREFIX: &str = "bridgebook.";

/// Last character of a pattern that matches every namespace with a prefix.
pub const WILDCARD: char = '*';

/// The namespace of the registry, see [`Namespace::registry`].
const REGISTRY: &str = "bridgebook.registry";

/// The namespace of deleted rows, see [`Namespace::deleted`].
const DELETED: &str = "bridgebook.deleted";

impl Namespace {
    /// Makes the namespace of an admitted request. Only `rpc::admit` calls this;
    /// `tests/house` enforces it.
    pub(crate) fn admitted(name: String) -> Self {
        Namespace(name)
    }

    /// Makes a namespace for a unit test.
    #[cfg(test)]
    pub(crate) fn for_test(name: &str) -> Self {
        Namespace(name.to_owned())
    }

    /// Returns the namespace in which the registry, which all tenants share, journals
    /// state changes of nodes.
    #[must_use]
    pub fn registry() -> Self {
        Namespace(REGISTRY.to_owned())
    }

    /// Returns the name of [`Namespace::registry`].
    #[must_use]
    pub const fn registry_name() -> &'static str {
        REGISTRY
    }

    /// Returns whether `namespace`, that of a row, is the registry's.
    #[must_use]
    pub fn is_registry(namespace: &str) -> bool {
        namespace == REGISTRY
    }

    /// Returns the namespace to which deleted workflows with many steps or stamps move, and
    /// deleted bridges with many batches. No tenant can name it, so every reader finds them gone.
    /// Retention removes them in parts.
    #[must_use]
    pub fn deleted() -> Self {
        Namespace(DELETED.to_owned())
    }

    /// Returns whether `namespace`, that of a row, is that of deleted rows.
    #[must_use]
    pub fn is_deleted(namespace: &str) -> bool {
        namespace == DELETED
    }

    /// Returns whether the namespace belongs to the service.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX)
    }

    /// Returns the namespace as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ToSql<Text, Pg> for Namespace {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Text, Pg>::to_sql(self.0.as_str(), out)
    }
}

/// Returns whether a namespace can have rows: any tenant's can, and of the service's own only
/// the registry's.
#[must_use]
pub fn may_have_rows(namespace: &str) -> bool {
    !namespace.starts_with(RESERVED_PREFIX) || Namespace::is_registry(namespace)
}

/// A validated request together with the tenant that it acts for.
#[derive(Debug)]
pub struct Scoped<T> {
    /// The tenant.
    pub namespace: Namespace,
    /// The token of the caller, which the journal keeps; `None` where the service runs
    /// without tokens.
    pub token_id: Option<TokenId>,
    /// The time at which the call ends, if it is known.
    pub deadline: Option<Instant>,
    /// The request.
    pub content: T,
}

impl<T> std::ops::Deref for Scoped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.content
    }
}
