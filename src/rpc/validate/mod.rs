//! Validates the fields of a request and collects every violation.
//!
//! A check returns the good value, or notes a violation and returns a placeholder;
//! [`Validator::finish`] fails with all violations if there is at least one.

mod enums;
mod numbers;
mod texts;

use std::fmt;

use uuid::Uuid;

pub use self::enums::ProtoEnum;
pub(crate) use self::enums::proto_enum;
pub use self::texts::quoted;
use crate::domain::{
    json::{JsonLimits, JsonObject, Struct},
    limits::{ContentLimits, MAX_FILTER_ARRAY_VALUES, MAX_FILTER_BYTES},
    page_token_key::PageTokenKey,
    violation::{Violation, Violations},
};

/// Maximum number of violations that are listed. Others are only counted, so that a request with a
/// million faults costs no more than one with twenty. Error details travel in a header, and
/// clients accept 8 KiB of headers.
const MAX_VIOLATIONS: usize = 20;

/// Length of a UUID in its hyphenated form, the only one that is accepted.
const HYPHENATED_LENGTH: usize = 36;

/// Collects the violations of a request.
#[derive(Debug)]
pub struct Validator {
    limits: ContentLimits,
    page_token_key: Option<PageTokenKey>,
    prefix: String,
    violations: Vec<Violation>,
    unlisted: usize,
}

impl Validator {
    /// Makes a validator that holds a request to `limits`.
    #[must_use]
    pub fn new(limits: ContentLimits) -> Self {
        Validator {
            limits,
            page_token_key: None,
            prefix: String::new(),
            violations: Vec::new(),
            unlisted: 0,
        }
    }

    /// Lets the request be a list: gives the key that signs its page tokens.
    #[must_use]
    pub fn with_page_tokens(self, key: PageTokenKey) -> Self {
        Validator {
            page_token_key: Some(key),
            ..self
        }
    }

    /// Returns the key that signs page tokens.
    pub(super) fn page_token_key(&self) -> Option<PageTokenKey> {
        self.page_token_key
    }

    /// Makes a validator for the fields of one item of a list, such as `steps[3]`. Its
    /// violations are the item's own.
    #[must_use]
    pub fn for_item(&self, field: &str) -> Self {
        Validator {
            prefix: format!("{field}."),
            ..Validator::new(self.limits)
        }
    }

    /// Checks the fields of the message in `field`.
    pub fn within<T>(&mut self, field: &str, check: impl FnOnce(&mut Self) -> T) -> T {
        let inner = format!("{}{field}.", self.prefix);
        let outer = std::mem::replace(&mut self.prefix, inner);
        let value = check(self);
        self.prefix = outer;
        value
    }

    /// Notes a violation; after [`MAX_VIOLATIONS`] only counts it.
    pub fn violation(&mut self, field: &str, description: impl Into<String>) {
        if self.violations.len() >= MAX_VIOLATIONS {
            self.unlisted += 1;
            return;
        }
        self.violations.push(Violation {
            field: format!("{}{field}", self.prefix),
            description: description.into(),
        });
    }

    /// Notes a violation of one item of a list of any length. Makes the texts only if the
    /// violation is listed.
    fn item_violation(&mut self, field: &str, index: usize, rule: impl FnOnce() -> String) {
        if self.violations.len() >= MAX_VIOLATIONS {
            self.unlisted += 1;
            return;
        }
        self.violation(&format!("{field}[{index}]"), rule());
    }

    /// Returns whether there is no violation so far.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Returns `value` if there is no violation.
    ///
    /// # Errors
    /// All violations.
    pub fn finish<T>(self, value: T) -> Result<T, Violations> {
        match self.violations.is_empty() {
            true => Ok(value),
            false => Err(Violations {
                listed: self.violations,
                unlisted: self.unlisted,
            }),
        }
    }

    /// Returns the value of `result`, or notes its error.
    pub fn parsed<T: Default>(&mut self, field: &str, result: Result<T, impl fmt::Display>) -> T {
        result.unwrap_or_else(|fault| {
            self.violation(field, fault.to_string());
            T::default()
        })
    }

    /// Checks a required id.
    pub fn id<T: From<Uuid> + Default>(&mut self, field: &str, text: &str) -> T {
        if text.is_empty() {
            self.violation(field, "is required");
            return T::default();
        }
        self.optional_id(field, text).unwrap_or_default()
    }

    /// Checks an id; an empty one is unset.
    pub fn optional_id<T: From<Uuid>>(&mut self, field: &str, text: &str) -> Option<T> {
        if text.is_empty() {
            return None;
        }
        match parse_id(text) {
            Some(id) if id.is_nil() => self.violation(field, "must not be the nil UUID"),
            Some(id) => return Some(id.into()),
            None => {
                let rule = "must be a hyphenated UUID like 0192f0c1-7a5b-7cc3-98a1-52f3c0de4a11";
                self.violation(field, format!("{rule}, got {}", quoted(text)));
            }
        }
        None
    }

    /// Checks a JSON document; an unset one is empty.
    pub fn json(&mut self, field: &str, document: Option<Struct>) -> JsonObject {
        let ContentLimits {
            json_bytes,
            json_depth,
            ..
        } = self.limits;
        let limits = JsonLimits {
            depth: json_depth,
            text_bytes: json_bytes,
            ..JsonLimits::default()
        };
        self.parsed(field, document.unwrap_or_default().into_object(limits))
    }

    /// Checks a JSON document of at most `max_bytes` bytes as protobuf and `max_depth`
    /// levels; an unset one is empty.
    pub fn small_json(
        &mut self,
        field: &str,
        document: Option<Struct>,
        max_bytes: usize,
        max_depth: usize,
    ) -> JsonObject {
        let limits = JsonLimits {
            depth: max_depth.min(self.limits.json_depth),
            text_bytes: self.limits.json_bytes,
            wire_bytes: max_bytes,
        };
        self.parsed(field, document.unwrap_or_default().into_object(limits))
    }

    /// Checks a JSON document that rows have to contain; an unset one is empty.
    pub fn json_filter(&mut self, field: &str, document: Option<Struct>) -> JsonObject {
        let depth = self.limits.json_depth;
        let filter = self.small_json(field, document, MAX_FILTER_BYTES, depth);
        let values = filter.array_values();
        if values > MAX_FILTER_ARRAY_VALUES {
            let rule = format!("must have at most {MAX_FILTER_ARRAY_VALUES} values in arrays");
            self.violation(field, format!("{rule}, got {values}"));
        }
        filter
    }
}

fn parse_id(text: &str) -> Option<Uuid> {
    (text.len() == HYPHENATED_LENGTH)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limits::MAX_BATCH;

    /// Returns the fields for which `check` notes a violation.
    pub(super) fn violations(check: impl FnOnce(&mut Validator)) -> Vec<String> {
        let mut validator = Validator::new(ContentLimits::default());
        check(&mut validator);
        let violations = validator
            .finish(())
            .err()
            .map(|violations| violations.listed);
        let violations = violations.into_iter().flatten();
        violations.map(|violation| violation.field).collect()
    }

    #[test]
    fn only_hyphenated_uuids_are_ids() {
        for (text, good) in [
            ("0192F0C1-7A5B-7CC3-98A1-52F3C0DE4A11", true),
            ("0192f0c17a5b7cc398a152f3c0de4a11", false),
            ("{0192f0c1-7a5b-7cc3-98a1-52f3c0de4a11}", false),
            ("00000000-0000-0000-0000-000000000000", false),
            ("0192f0c1-7a5b-7cc3-98a1-52f3c0de4a1\0", false),
            ("", false),
        ] {
            let found = violations(|check| {
                check.id::<Uuid>("id", text);
            });
            assert_eq!(found.is_empty(), good, "{text:?}");
        }
    }

    #[test]
    fn every_violation_is_collected() {
        let found = violations(|check| {
            check.namespace("namespace", "a*b".into());
            check.within("step", |check| {
                check.name("workflow_type", "7\n".into());
            });
            check.file_hash("file_hash", "ab\0".into());
            check.optional_count("execution_time_ms", Some(-1_i64));
            check.item_count("steps", MAX_BATCH + 1);
        });
        let fields = [
            "namespace",
            "step.workflow_type",
            "file_hash",
            "execution_time_ms",
            "steps",
        ];
        assert_eq!(found, fields);
    }
}
