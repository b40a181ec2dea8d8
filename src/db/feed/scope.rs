//! What a reader of the feed follows: namespaces, and the transitions that it wants of them.

use std::fmt;

use uuid::Uuid;

use crate::{
    db::journal::Transition,
    domain::namespace::{Namespace, RESERVED_PREFIX, WILDCARD},
};

/// The namespaces that a reader follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One namespace.
    Namespace(String),
    /// All namespaces of tenants that begin with this.
    Prefix(String),
}

/// The common table expression `found`: the namespaces of the journal from a prefix on, one step in the
/// index for each, and the first one after those with the prefix.
macro_rules! walk_namespaces {
    ($prefix:literal) => {
        concat!(
            "WITH RECURSIVE found AS (
                (SELECT j.namespace FROM fsm_transitions j
                  WHERE ",
            byte_order!("j.namespace"),
            " >= ",
            $prefix,
            "
                  ORDER BY ",
            byte_order!("j.namespace"),
            " LIMIT 1)
                UNION ALL
                SELECT (SELECT j.namespace FROM fsm_transitions j
                         WHERE ",
            byte_order!("j.namespace"),
            " > found.namespace
                         ORDER BY ",
            byte_order!("j.namespace"),
            " LIMIT 1)
                  FROM found WHERE starts_with(found.namespace, ",
            $prefix,
            ")
            )"
        )
    };
}

pub(super) use walk_namespaces;

impl Scope {
    /// Returns the scope of an admitted request, whose namespace may end in `*`.
    #[must_use]
    pub fn of(namespace: &Namespace) -> Self {
        match namespace.as_str().strip_suffix(WILDCARD) {
            Some(prefix) => Scope::Prefix(prefix.to_owned()),
            None => Scope::Namespace(namespace.to_string()),
        }
    }

    /// Returns whether the scope includes a namespace.
    #[must_use]
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Scope::Namespace(name) => name == namespace,
            Scope::Prefix(prefix) => {
                namespace.starts_with(prefix) && !namespace.starts_with(RESERVED_PREFIX)
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Namespace(name) => f.write_str(name),
            Scope::Prefix(prefix) => write!(f, "{prefix}{WILDCARD}"),
        }
    }
}

/// The transitions that a reader wants. An unset field matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TransitionMatch {
    /// The type of the entity.
    pub entity_type: Option<String>,
    /// The id of the entity.
    pub entity_id: Option<Uuid>,
    /// The event of the transition.
    pub transition_event: Option<String>,
    /// The state that the entity entered.
    pub to_state: Option<String>,
}

/// Which fields of a [`TransitionMatch`] are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fields {
    pub entity_type: bool,
    pub entity_id: bool,
    pub transition_event: bool,
    pub to_state: bool,
}

impl TransitionMatch {
    /// Returns which fields are set.
    pub(super) fn fields(&self) -> Fields {
        Fields {
            entity_type: self.entity_type.is_some(),
            entity_id: self.entity_id.is_some(),
            transition_event: self.transition_event.is_some(),
            to_state: self.to_state.is_some(),
        }
    }

    /// Returns the one with these fields that matches a row.
    pub(super) fn of(row: &Transition, fields: Fields) -> Self {
        let text = |is_set: bool, value: &str| is_set.then(|| value.to_owned());
        TransitionMatch {
            entity_type: text(fields.entity_type, &row.entity_type),
            entity_id: fields.entity_id.then_some(row.entity_id),
            transition_event: text(fields.transition_event, &row.transition_event),
            to_state: text(fields.to_state, &row.to_state),
        }
    }

    /// Returns whether a transition meets all conditions.
    #[must_use]
    pub fn matches(&self, row: &Transition) -> bool {
        let is = |wanted: &Option<String>, value: &String| {
            wanted.as_ref().is_none_or(|wanted| wanted == value)
        };
        self.entity_id.is_none_or(|id| id == row.entity_id)
            && is(&self.entity_type, &row.entity_type)
            && is(&self.transition_event, &row.transition_event)
            && is(&self.to_state, &row.to_state)
    }
}
