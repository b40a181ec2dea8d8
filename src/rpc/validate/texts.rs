//! Checks of names and texts.
//!
//! # Names
//!
//! Callers name nodes, types, versions, states, events, steps and tokens. One rule holds for all
//! of these names, and `workflow_service.proto` states it for callers:
//!
//! * A name has at least one character and a maximum length, counted in characters.
//! * All characters are printable, of any script, see [`Unprintable`].
//! * Invisible characters were accepted once. Requests that look for rows still accept them, so that
//!   those rows stay readable.
//! * The first and the last character are no blanks, because readers do not see them.
//! * Names are equal if their bytes are.
//!
//! A name may contain what is syntax elsewhere. The code that puts names into another language
//! escapes them: diagrams (`Definition::mermaid`), lists in errors (`domain::error`), headers (tonic)
//! and logs (tracing).
//!
//! Namespaces and hashes of files have a narrower alphabet. A namespace is part of policies, in
//! which `*` has a meaning.

use super::Validator;
use crate::{
    domain::{
        namespace::{RESERVED_PREFIX, WILDCARD},
        position::{GivenPosition, Position},
    },
    util::unprintable::Unprintable,
};

/// Maximum length of a namespace, in characters: VARCHAR(255).
const NAMESPACE_CHARS: usize = 255;
/// Maximum length of the name of a type, an event, a step or a token, in characters: VARCHAR(100).
const NAME_CHARS: usize = 100;
/// Maximum length of a state, in characters: VARCHAR(50).
const STATE_CHARS: usize = 50;
/// Maximum length of a file_hash, in characters: VARCHAR(128), the hexadecimal digits of
/// 512 bits.
const HASH_CHARS: usize = 128;
/// Maximum length of a node_id, in characters: VARCHAR(255).
const NODE_ID_CHARS: usize = 255;
/// Maximum length of a node_version, in characters: VARCHAR(50).
const NODE_VERSION_CHARS: usize = 50;
/// Maximum length of an error_message, in characters: a long stack trace, but no log file.
const MESSAGE_CHARS: usize = 65_536;
/// Maximum length of a rejected value in a violation, in characters: that of a position.
const QUOTED_CHARS: usize = 48;

impl Validator {
    /// Checks a required namespace.
    pub fn namespace(&mut self, field: &str, text: String) -> String {
        if text.starts_with(|c: char| "._:/-".contains(c)) {
            let rule = "must start with a letter or digit";
            self.violation(field, format!("{rule}, got {}", quoted(&text)));
            return text;
        }
        self.pattern(field, text, "._:/-", NAMESPACE_CHARS)
    }

    /// Checks a pattern of a token: a namespace, or a prefix of namespaces followed by `*`.
    pub fn namespace_pattern(&mut self, field: &str, pattern: &str) {
        let prefix = pattern.strip_suffix('*');
        let name = prefix.unwrap_or(pattern);
        let mut check = self.for_item(field);
        check.namespace("", name.to_owned());
        if prefix == Some("") {
            // "*" alone is every namespace.
        } else if !check.is_clean() {
            let rule = "must be a namespace (1 to 255 characters of A-Z a-z 0-9 ._:/-, the first \
                        one a letter or digit), a prefix of namespaces followed by one *, or *";
            self.violation(field, format!("{rule}; got {}", quoted(pattern)));
        } else if name.starts_with(RESERVED_PREFIX) {
            let rule = format!("must not start with {RESERVED_PREFIX:?}, which is reserved");
            self.violation(field, format!("{rule}, got {}", quoted(pattern)));
        }
    }

    /// Checks a position of the journal: of a namespace, or of any if that ends in `*`. The row that it
    /// names is not looked up.
    pub fn position(&mut self, field: &str, namespace: &str, text: &str) -> Position {
        let given = GivenPosition::parse(text);
        let position = match namespace.ends_with(WILDCARD) {
            true => given.map(|given| given.of_any()),
            false => given.and_then(|given| given.of(namespace)),
        };
        if position.is_none() {
            let rule =
                "must be a position that this service returned for the same namespace or pattern";
            self.violation(field, format!("{rule}, got {}", quoted(text)));
        }
        position.unwrap_or_default()
    }

    /// Checks the required name of a type, an event, a step or a token.
    pub fn name(&mut self, field: &str, text: String) -> String {
        self.new_text(field, text, NAME_CHARS)
    }

    /// Checks the required name of a type whose rows are looked for.
    pub fn stored_name(&mut self, field: &str, text: String) -> String {
        self.stored_text(field, text, NAME_CHARS)
    }

    /// Checks a name in a filter; an empty one is unset.
    pub fn optional_stored_name(&mut self, field: &str, text: String) -> Option<String> {
        (!text.is_empty()).then(|| self.stored_name(field, text))
    }

    /// Checks a name; an empty one is unset.
    pub fn optional_name(&mut self, field: &str, text: String) -> Option<String> {
        (!text.is_empty()).then(|| self.name(field, text))
    }

    /// Checks the required state of a state machine.
    pub fn state(&mut self, field: &str, text: String) -> String {
        self.new_text(field, text, STATE_CHARS)
    }

    /// Checks a state in a filter; an empty one is unset.
    pub fn optional_stored_state(&mut self, field: &str, text: String) -> Option<String> {
        (!text.is_empty()).then(|| self.stored_text(field, text, STATE_CHARS))
    }

    /// Checks a state; an empty one is unset.
    pub fn optional_state(&mut self, field: &str, text: String) -> Option<String> {
        (!text.is_empty()).then(|| self.state(field, text))
    }

    /// Checks the required hash of a file.
    pub fn file_hash(&mut self, field: &str, text: String) -> String {
        self.pattern(field, text, "+/=._:-", HASH_CHARS)
    }

    /// Checks a hash; an empty one is unset.
    pub fn optional_file_hash(&mut self, field: &str, text: String) -> Option<String> {
        (!text.is_empty()).then(|| self.file_hash(field, text))
    }

    /// Checks the required name of a node that registers.
    pub fn node_id(&mut self, field: &str, text: String) -> String {
        self.new_text(field, text, NODE_ID_CHARS)
    }

    /// Checks the required name of a registered node.
    pub fn stored_node_id(&mut self, field: &str, text: String) -> String {
        self.stored_text(field, text, NODE_ID_CHARS)
    }

    /// Checks the required version of a node's software.
    pub fn node_version(&mut self, field: &str, text: String) -> String {
        self.new_text(field, text, NODE_VERSION_CHARS)
    }

    /// Checks a name by the rule of this module.
    fn new_text(&mut self, field: &str, text: String, max_chars: usize) -> String {
        self.printable(field, text, max_chars, |_| true)
    }

    /// Checks a name by the rule of this module, but accepts invisible characters.
    fn stored_text(&mut self, field: &str, text: String, max_chars: usize) -> String {
        self.printable(field, text, max_chars, |kind| {
            kind != Unprintable::Invisible
        })
    }

    fn printable(
        &mut self,
        field: &str,
        text: String,
        max_chars: usize,
        is_rejected: impl Fn(Unprintable) -> bool,
    ) -> String {
        let length = text.chars().count();
        if text.is_empty() {
            self.violation(field, "is required");
        } else if let Some(fault) = unprintable(&text, is_rejected) {
            let value = quoted(&text);
            self.violation(field, format!("must not contain {fault}, got {value}"));
        } else if text.trim().len() < text.len() {
            let value = quoted(&text);
            self.violation(
                field,
                format!("must not begin or end with a blank, got {value}"),
            );
        } else if length > max_chars {
            self.violation(field, too_long(max_chars, length));
        }
        text
    }

    /// Checks that `text` is not empty and has only letters, digits and `punctuation`.
    fn pattern(
        &mut self,
        field: &str,
        text: String,
        punctuation: &str,
        max_chars: usize,
    ) -> String {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || punctuation.contains(c);
        if text.is_empty() {
            self.violation(field, "is required");
        } else if !text.chars().all(is_allowed) {
            let rule = format!("must contain only A-Z a-z 0-9 {punctuation}");
            self.violation(field, format!("{rule}, got {}", quoted(&text)));
        } else if text.len() > max_chars {
            self.violation(field, too_long(max_chars, text.len()));
        }
        text
    }

    /// Checks a message for people; it may be unset but not empty.
    pub fn optional_message(&mut self, field: &str, text: Option<String>) -> Option<String> {
        if let Some(text) = &text {
            let length = text.chars().count();
            if text.is_empty() {
                self.violation(field, "must not be empty; leave it unset instead");
            } else if text.contains('\0') {
                self.violation(field, "must not contain a NUL character");
            } else if length > MESSAGE_CHARS {
                self.violation(field, too_long(MESSAGE_CHARS, length));
            }
        }
        text
    }
}

fn too_long(max_chars: usize, length: usize) -> String {
    format!("must be at most {max_chars} characters, got {length}")
}

/// Quotes a value of the caller's for an error, escaped and cut to [`QUOTED_CHARS`].
#[must_use]
pub fn quoted(text: &str) -> String {
    let start: String = text.chars().take(QUOTED_CHARS).collect();
    let rest = if start.len() < text.len() { "…" } else { "" };
    format!("{start:?}{rest}")
}

/// Names the first character of a rejected kind.
fn unprintable(text: &str, is_rejected: impl Fn(Unprintable) -> bool) -> Option<String> {
    let mut kinds = text.chars().map(|it| (it, Unprintable::of(it)));
    kinds.find_map(|(character, kind)| {
        let kind = kind.filter(|kind| is_rejected(*kind))?;
        Some(format!(
            "the {} U+{:04X}",
            kind.name(),
            u32::from(character)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::tests::violations, *};

    #[test]
    fn lengths_are_counted_in_characters() {
        for (chars, good) in [(NAME_CHARS, true), (NAME_CHARS + 1, false)] {
            let found = violations(|check| {
                check.name("step_name", "ü".repeat(chars));
            });
            assert_eq!(found.is_empty(), good);
        }
    }

    #[test]
    fn a_line_has_no_characters_that_make_it_look_like_another() {
        for (text, named) in [
            ("a\nb", Some("control character U+000A")),
            ("a\u{85}", Some("control character U+0085")),
            ("a\u{2028}b", Some("line or paragraph separator U+2028")),
            (
                "\u{202e}abc",
                Some("control of the writing direction U+202E"),
            ),
            ("a\u{2069}", Some("control of the writing direction U+2069")),
            ("pay\u{200b}pal", Some("invisible character U+200B")),
            ("pay\u{ad}pal", Some("invisible character U+00AD")),
            ("\u{feff}a", Some("invisible character U+FEFF")),
            ("a\u{2060}", Some("invisible character U+2060")),
            ("a\u{2064}b", Some("invisible character U+2064")),
            // Emoji and Persian need the joiners; the marks have no effect on Latin text.
            ("👩\u{200d}🔧", None),
            ("می\u{200c}خواهم", None),
            ("a\u{200e}b", None),
        ] {
            let found = unprintable(text, |_| true);
            assert_eq!(found, named.map(|named| format!("the {named}")), "{text:?}");
        }
    }

    #[test]
    fn names_are_printable_and_not_framed_by_blanks() {
        for (name, good) in [
            ("celery@host", true),
            ("app@10.0.0.7", true),
            ("[2001:db8::1]:4646", true),
            ("In review? (2nd)", true),
            ("<script>--> %%{\"#;*", true),
            ("در حال انجام", true),
            ("👩\u{200d}💻 e\u{301}", true),
            (" a", false),
            ("a\u{a0}", false),
            (" ", false),
            ("a\nb", false),
            ("a\u{7f}", false),
            ("a\u{85}b", false),
            ("a\u{2028}b", false),
            ("a\u{202e}b", false),
            ("a\u{2066}b", false),
            ("", false),
        ] {
            let found = violations(|check| {
                check.node_id("node_id", name.into());
                check.state("state", name.into());
                check.name("event", name.into());
                check.node_version("version", name.into());
            });
            let expected = if good { 0 } else { 4 };
            assert_eq!(found.len(), expected, "{name:?}");
        }
    }

    #[test]
    fn rows_whose_names_have_invisible_characters_can_be_looked_for() {
        for (name, good) in [("a\u{200b}b", true), ("a\u{202e}b", false), ("a\nb", false)] {
            let found = violations(|check| {
                check.stored_node_id("node_id", name.into());
                check.stored_name("type", name.into());
                check.optional_stored_name("type", name.into());
                check.optional_stored_state("state", name.into());
            });
            assert_eq!(found.len(), if good { 0 } else { 4 }, "{name:?}");
        }
    }

    #[test]
    fn a_rejected_value_is_quoted_escaped_and_cut() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        let long = quoted(&"x".repeat(1000));
        assert_eq!(long.chars().count(), QUOTED_CHARS + 3);
    }
}
