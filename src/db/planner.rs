//! Plan settings and tricks.

use crate::domain::namespace::Namespace;

/// The namespace of a list, for `= ANY`, with the namespace in the order.
///
/// With "=" PostgreSQL drops the namespace from the order, and then may walk
/// through the rows of all tenants by their time, in the hope of meeting those of
/// one soon. Like this only an index that begins with the namespace has the order.
#[must_use]
pub fn any_namespace(namespace: &Namespace) -> [&Namespace; 1] {
    [namespace]
}
