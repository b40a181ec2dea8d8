//! The namespaces in which rows were committed.

use std::{collections::HashSet, mem};

use super::scope::Scope;

/// How many namespaces are kept by name. With more, all are looked at.
const MAX_NAMES: usize = 4096;

/// Maximum size of a notification, in bytes. PostgreSQL allows 7999.
const MAX_PAYLOAD: usize = 7000;

/// Separates names in a notification. No namespace has it.
const SEPARATOR: char = ' ';

/// A set of namespaces, or all.
#[derive(Debug, Default)]
pub(super) struct Changes {
    names: HashSet<String>,
    is_all: bool,
}

impl Changes {
    /// Adds a namespace.
    pub(super) fn insert(&mut self, namespace: &str) {
        if self.is_all || self.names.contains(namespace) {
            return;
        }
        self.names.insert(namespace.to_owned());
        if self.names.len() > MAX_NAMES {
            self.insert_all();
        }
    }

    fn insert_all(&mut self) {
        self.names.clear();
        self.is_all = true;
    }

    /// Adds the namespaces of a notification.
    pub(super) fn insert_payload(&mut self, payload: &str) {
        match payload.is_empty() {
            true => self.insert_all(),
            false => payload.split(SEPARATOR).for_each(|name| self.insert(name)),
        }
    }

    /// Adds the namespaces of another set.
    pub(super) fn merge(&mut self, other: &Changes) {
        match other.is_all {
            true => self.insert_all(),
            false => other.names.iter().for_each(|name| self.insert(name)),
        }
    }

    /// Returns whether the set has a namespace of a scope.
    pub(super) fn includes(&self, scope: &Scope) -> bool {
        self.is_all
            || match scope {
                Scope::Namespace(name) => self.names.contains(name),
                Scope::Prefix(_) => self.names.iter().any(|name| scope.includes(name)),
            }
    }

    /// Returns whether the set is empty.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_all && self.names.is_empty()
    }

    /// Takes the content of the set.
    pub(super) fn take(&mut self) -> Changes {
        mem::take(self)
    }

    /// Returns the content of a notification, which is empty for all namespaces.
    pub(super) fn payload(&self) -> String {
        let mut payload = String::new();
        if self.is_all {
            return payload;
        }
        for name in &self.names {
            if payload.len() + name.len() >= MAX_PAYLOAD {
                return String::new();
            }
            if !payload.is_empty() {
                payload.push(SEPARATOR);
            }
            payload.push_str(name);
        }
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Changes {
        let mut changes = Changes::default();
        names.iter().for_each(|name| changes.insert(name));
        changes
    }

    #[test]
    fn a_notification_names_the_namespaces_or_stands_for_all() {
        let scope = |name: &str| Scope::Namespace(name.to_owned());
        let mut heard = Changes::default();
        assert!(heard.is_empty());
        heard.insert_payload(&of(&["a", "b"]).payload());
        assert!(heard.includes(&scope("a")) && heard.includes(&scope("b")));
        assert!(!heard.includes(&scope("c")));
        assert!(heard.includes(&Scope::Prefix("a".into())));
        let many: Vec<String> = (0..100).map(|number| format!("{number:0>100}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(of(&many).payload(), "");
        heard.insert_payload("");
        assert!(heard.includes(&scope("c")) && !heard.is_empty());
    }

    #[test]
    fn a_set_does_not_grow_without_end() {
        let names: Vec<String> = (0..=MAX_NAMES).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let changes = of(&names);
        assert!(changes.names.is_empty());
        assert!(changes.includes(&Scope::Namespace("x".into())));
    }
}
