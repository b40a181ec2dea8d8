//! Checks the fields of a request and collects every violation.
//!
//! A check answers the good value, or notes what is wrong and answers a
//! placeholder; [`Checker::finish`] lets nothing out if anything was noted.

mod violation;

use std::fmt;

use chrono::{DateTime, Utc};
use prost_types::{Duration, Timestamp};
use uuid::Uuid;

pub use violation::{Violation, Violations};

use crate::{
    json::{self, JsonObject, Struct},
    limits::ContentLimits,
    request, time,
};

/// The longest namespace, in characters: VARCHAR(255).
const NAMESPACE_CHARS: usize = 255;
/// The longest type name, step name or event, in characters: VARCHAR(100).
const NAME_CHARS: usize = 100;
/// The longest state, in characters: VARCHAR(50).
const STATE_CHARS: usize = 50;
/// The longest file_hash, in characters: VARCHAR(128), the hexadecimal digits of 512 bits.
const HASH_CHARS: usize = 128;
/// The longest node_id and node_version, in characters: VARCHAR(255) and VARCHAR(50).
const NODE_ID_CHARS: usize = 255;
const NODE_VERSION_CHARS: usize = 50;
/// The longest error_message, in characters: a long stack trace, but no log file.
const MESSAGE_CHARS: usize = 65_536;
/// The most items in a batch call: one fits the 4 MiB of a gRPC message with
/// 4 KiB an item, and is one statement.
pub const MAX_BATCH: usize = 1000;

/// The most rows of an answer; each is small.
pub const MAX_ROWS: i32 = 1000;

/// The most violations that are noted of a request, so that one with a million
/// faults costs no more than one with twenty. Error details travel in a header,
/// and clients take 8 KiB of headers.
const MAX_VIOLATIONS: usize = 20;

/// Collects violations.
#[derive(Debug, Default)]
pub struct Checker {
    prefix: String,
    violations: Vec<Violation>,
}

impl Checker {
    /// A checker of the fields within another field, such as `steps[3]`.
    #[must_use]
    pub fn within(field: &str) -> Self {
        Checker {
            prefix: format!("{field}."),
            violations: Vec::new(),
        }
    }

    /// Notes that something is wrong with a field, if there is not enough already.
    pub fn violation(&mut self, field: &str, description: impl Into<String>) {
        if self.violations.len() >= MAX_VIOLATIONS {
            return;
        }
        self.violations.push(Violation {
            field: format!("{}{field}", self.prefix),
            description: description.into(),
        });
    }

    /// Whether nothing was noted so far.
    #[must_use]
    pub fn is_content(&self) -> bool {
        self.violations.is_empty()
    }

    /// Lets `value` out if nothing was noted.
    ///
    /// # Errors
    /// Everything that was noted.
    pub fn finish<T>(self, value: T) -> Result<T, Violations> {
        if self.violations.is_empty() {
            Ok(value)
        } else {
            Err(Violations(self.violations))
        }
    }

    /// Ends with what was noted and what someone else had noted.
    #[must_use]
    pub fn also(mut self, others: Violations) -> Violations {
        self.violations.extend(others.0);
        self.violations.truncate(MAX_VIOLATIONS);
        Violations(self.violations)
    }

    /// Notes the error of a result, or answers its value.
    pub fn noted<T: Default>(&mut self, field: &str, result: Result<T, impl fmt::Display>) -> T {
        result.unwrap_or_else(|fault| {
            self.violation(field, fault.to_string());
            T::default()
        })
    }

    /// A required id.
    pub fn id<T: From<Uuid> + Default>(&mut self, field: &str, text: &str) -> T {
        if text.is_empty() {
            self.violation(field, "is required");
            return T::default();
        }
        self.optional_id(field, text).unwrap_or_default()
    }

    /// An id that may be left out.
    pub fn optional_id<T: From<Uuid>>(&mut self, field: &str, text: &str) -> Option<T> {
        if text.is_empty() {
            return None;
        }
        match parse_id(text) {
            Some(id) if id.is_nil() => self.violation(field, "must not be the nil UUID"),
            Some(id) => return Some(id.into()),
            None => self.violation(
                field,
                "must be a UUID like 0192f0c1-7a5b-7cc3-98a1-52f3c0de4a11",
            ),
        }
        None
    }

    /// A required namespace.
    pub fn namespace(&mut self, field: &str, text: String) -> String {
        let ok = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        self.pattern(
            field,
            text,
            begins,
            ok,
            NAMESPACE_CHARS,
            "._:/- and begin with a letter or digit",
        )
    }

    /// A required name of a type or an event.
    pub fn name(&mut self, field: &str, text: String) -> String {
        let ok = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
        self.pattern(
            field,
            text,
            begins,
            ok,
            NAME_CHARS,
            "._:/- and begin with a letter",
        )
    }

    /// A required state of a state machine.
    pub fn state(&mut self, field: &str, text: String) -> String {
        let text = self.name(field, text);
        if (STATE_CHARS + 1..=NAME_CHARS).contains(&text.len()) {
            self.violation(
                field,
                format!("must not be longer than {STATE_CHARS} characters"),
            );
        }
        text
    }

    /// A state that may be left out.
    pub fn optional_state(&mut self, field: &str, text: String) -> Option<String> {
        (!text.is_empty()).then(|| self.state(field, text))
    }

    /// A name that may be left out.
    pub fn optional_name(&mut self, field: &str, text: String) -> Option<String> {
        (!text.is_empty()).then(|| self.name(field, text))
    }

    /// A required hash of a file.
    pub fn file_hash(&mut self, field: &str, text: String) -> String {
        let ok = |c: char| c.is_ascii_alphanumeric() || "+/=._:-".contains(c);
        self.pattern(field, text, true, ok, HASH_CHARS, "+/=._:-")
    }

    /// A hash that may be left out.
    pub fn optional_file_hash(&mut self, field: &str, text: String) -> Option<String> {
        (!text.is_empty()).then(|| self.file_hash(field, text))
    }

    /// A required name of a node.
    pub fn node_id(&mut self, field: &str, text: String) -> String {
        self.of_node(field, text, NODE_ID_CHARS)
    }

    /// A required type of a node.
    pub fn node_type(&mut self, field: &str, text: String) -> String {
        self.of_node(field, text, NAME_CHARS)
    }

    /// A required version of a node's software.
    pub fn node_version(&mut self, field: &str, text: String) -> String {
        self.of_node(field, text, NODE_VERSION_CHARS)
    }

    /// What a node says of itself in a word; host names and versions fit in.
    fn of_node(&mut self, field: &str, text: String, max_chars: usize) -> String {
        let ok = |c: char| c.is_ascii_alphanumeric() || "._:/-+".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let rule = "._:/-+ and begin with a letter or digit";
        self.pattern(field, text, begins, ok, max_chars, rule)
    }

    fn pattern(
        &mut self,
        field: &str,
        text: String,
        begins_well: bool,
        is_allowed: impl Fn(char) -> bool,
        max_chars: usize,
        rule: &str,
    ) -> String {
        if text.is_empty() {
            self.violation(field, "is required");
        } else if !begins_well || !text.chars().all(is_allowed) {
            self.violation(field, format!("must consist of A-Z a-z 0-9 {rule}"));
        } else if text.len() > max_chars {
            self.violation(
                field,
                format!("must not be longer than {max_chars} characters"),
            );
        }
        text
    }

    /// A required line of text for people, such as the name of a step.
    pub fn line(&mut self, field: &str, text: String) -> String {
        if text.is_empty() {
            self.violation(field, "is required");
        } else if text.chars().any(is_unseen) {
            self.violation(field, "must not contain a control character");
        } else if text.chars().count() > NAME_CHARS {
            self.violation(
                field,
                format!("must not be longer than {NAME_CHARS} characters"),
            );
        }
        text
    }

    /// A message for people that may be left out but not empty.
    pub fn optional_message(&mut self, field: &str, text: Option<String>) -> Option<String> {
        if let Some(text) = &text {
            if text.is_empty() {
                self.violation(field, "must not be empty; leave it out instead");
            } else if text.contains('\0') {
                self.violation(field, "must not contain a NUL character");
            } else if text.chars().count() > MESSAGE_CHARS {
                self.violation(
                    field,
                    format!("must not be longer than {MESSAGE_CHARS} characters"),
                );
            }
        }
        text
    }

    /// A JSON document; one that is left out is empty.
    pub fn json(&mut self, field: &str, document: Option<Struct>) -> JsonObject {
        let document = document.unwrap_or_default();
        let ContentLimits {
            json_bytes,
            json_depth,
            ..
        } = request::limits();
        if json_depth < json::MAX_DEPTH && document.depth() > json_depth {
            let fault = format!("must not nest deeper than {json_depth} levels");
            self.violation(field, fault);
            return JsonObject::default();
        }
        let document = self.noted(field, JsonObject::try_from(document));
        if json_bytes < json::MAX_BYTES && document.text_len() > json_bytes {
            let fault = format!("must not be longer than {json_bytes} bytes of JSON text");
            self.violation(field, fault);
        }
        document
    }

    /// A JSON document of at most so many bytes as protobuf, and so many levels; one
    /// that is left out is empty.
    pub fn small_json(
        &mut self,
        field: &str,
        document: Option<Struct>,
        max_bytes: usize,
        max_depth: usize,
    ) -> JsonObject {
        let depth = document.as_ref().map_or(1, Struct::depth);
        let document = self.json(field, document);
        if document.wire_len() > max_bytes {
            let fault = format!("must not be longer than {max_bytes} bytes as protobuf");
            self.violation(field, fault);
        } else if depth > max_depth {
            let fault = format!("must not nest deeper than {max_depth} levels");
            self.violation(field, fault);
        }
        document
    }

    /// A time that may be left out.
    pub fn optional_time(
        &mut self,
        field: &str,
        time: Option<&Timestamp>,
    ) -> Option<DateTime<Utc>> {
        time.map(|time| self.noted(field, time::from_proto(time)))
    }

    /// For how long to look back, in microseconds; it may be left out.
    pub fn optional_within(&mut self, field: &str, within: Option<Duration>) -> Option<i64> {
        within.map(|within| self.noted(field, time::positive_micros(&within)))
    }

    /// A duration or an order that may be left out but not negative.
    pub fn optional_count<T: Default + PartialOrd>(
        &mut self,
        field: &str,
        count: Option<T>,
    ) -> Option<T> {
        if count.as_ref().is_some_and(|count| *count < T::default()) {
            self.violation(field, "must not be negative");
        }
        count
    }

    /// How many rows an answer may have; 0 means `default`, and more than 1000 is
    /// taken as 1000 (AIP-158).
    pub fn limit(&mut self, field: &str, limit: i32, default: i32) -> i64 {
        if limit < 0 {
            self.violation(field, "must not be negative");
        }
        match limit {
            0 => default.min(request::limits().page_rows).into(),
            limit => limit.min(request::limits().page_rows).into(),
        }
    }

    /// The number of items in a batch.
    pub fn batch(&mut self, field: &str, items: usize) {
        let most = request::limits().batch_items;
        if items == 0 {
            self.violation(field, "must have at least 1 item");
        } else if items > most {
            self.violation(field, format!("must not have more than {most} items"));
        }
    }
}

/// The length of a UUID in its hyphenated form, the only one that is taken.
const HYPHENATED_LENGTH: usize = 36;

fn parse_id(text: &str) -> Option<Uuid> {
    (text.len() == HYPHENATED_LENGTH)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
}

/// Whether a character is not seen itself, but has others seen where they are not:
/// controls, line and paragraph separators, and what overrides the direction.
fn is_unseen(character: char) -> bool {
    let moves_others = matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || moves_others
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(check: impl FnOnce(&mut Checker)) -> Vec<String> {
        let mut checker = Checker::default();
        check(&mut checker);
        let violations = checker.finish(()).err().map(|violations| violations.0);
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
            let found = faults(|check| {
                check.id::<Uuid>("id", text);
            });
            assert_eq!(found.is_empty(), good, "{text:?}");
        }
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        for (chars, good) in [(NAME_CHARS, true), (NAME_CHARS + 1, false)] {
            let found = faults(|check| {
                check.line("step_name", "ü".repeat(chars));
            });
            assert_eq!(found.is_empty(), good);
        }
    }

    #[test]
    fn every_violation_is_collected() {
        let found = faults(|check| {
            check.namespace("namespace", "a*b".into());
            check.name("workflow_type", "7".into());
            check.file_hash("file_hash", "ab\0".into());
            check.optional_count("execution_time_ms", Some(-1_i64));
            check.batch("steps", MAX_BATCH + 1);
        });
        let fields = [
            "namespace",
            "workflow_type",
            "file_hash",
            "execution_time_ms",
            "steps",
        ];
        assert_eq!(found, fields);
    }
}
