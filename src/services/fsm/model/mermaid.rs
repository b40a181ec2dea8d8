//! Diagrams of machines, in the language of Mermaid (`stateDiagram-v2`).
//!
//! A name may contain any printable character, and Mermaid has many keywords. So a state has an
//! id that the diagram makes (`s0`, `s1`, …), and its name is only a label, which is escaped.
//! `tests/fsm/mermaid.rs` reads diagrams with Mermaid's own parser.

use std::{collections::BTreeMap, fmt::Write};

use super::Definition;

impl Definition {
    /// Returns the diagram of the machine.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let states = self.states().into_iter();
        let ids: BTreeMap<&str, usize> = states.zip(0..).collect();
        let id = |state: &str| ids.get(state).copied().unwrap_or_default();
        let mut out = String::from("stateDiagram-v2\n");
        // Writing to a String cannot fail.
        for (state, id) in &ids {
            let _ = writeln!(out, "    state \"{}\" as s{id}", label(state));
        }
        let _ = writeln!(out, "    [*] --> s{}", id(&self.initial_state));
        for it in &self.moves {
            let (from, to) = (id(&it.from_state), id(&it.to_state));
            let _ = writeln!(
                out,
                "    s{from} --> s{to} : {}",
                label(&it.transition_event)
            );
        }
        for state in &self.terminal_states {
            let _ = writeln!(out, "    s{} --> [*]", id(state));
        }
        out
    }
}

/// Escapes a name as a label. Letters, digits and blanks stay, and joiners within a word. Other
/// characters have a meaning in the language or in Markdown, so they become numeric entities.
/// So does the blank after the word `direction`: `direction TB` is a statement even in quotes.
fn label(name: &str) -> String {
    let mut label = String::with_capacity(name.len());
    let mut is_in_word = false;
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        let is_joiner = matches!(character, '_' | '-' | '/')
            && is_in_word
            && characters.peek().is_some_and(|next| next.is_alphanumeric());
        is_in_word = character.is_alphanumeric();
        let is_blank = character == ' ' && !label.to_ascii_lowercase().ends_with("direction");
        if is_in_word || is_joiner || is_blank {
            label.push(character);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(label, "#{};", u32::from(character));
        }
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_diagram_of_the_workflow_lifecycle_has_every_move() {
        assert_eq!(
            Definition::of_workflows().mermaid(),
            r#"stateDiagram-v2
    state "CANCELLED" as s0
    state "COMPLETED" as s1
    state "FAILED" as s2
    state "PENDING" as s3
    state "PROCESSING" as s4
    [*] --> s3
    s3 --> s4 : process
    s3 --> s2 : fail
    s3 --> s0 : cancel
    s4 --> s1 : complete
    s4 --> s2 : fail
    s4 --> s0 : cancel
    s2 --> s4 : retry
    s1 --> [*]
    s0 --> [*]
"#
        );
    }

    #[test]
    fn labels_are_escaped() {
        for (name, expected) in [
            ("IN_PROGRESS", "IN_PROGRESS"),
            ("a/b-c d", "a/b-c d"),
            ("_init_", "#95;init#95;"),
            ("a--b", "a#45;#45;b"),
            ("a Direction TB", "a Direction#32;TB"),
            ("go:on; \"now\"", "go#58;on#59; #34;now#34;"),
            ("1. größer", "1#46; größer"),
            ("ﬂ°°1¶ß", "ﬂ#176;#176;1#182;ß"),
        ] {
            assert_eq!(label(name), expected);
        }
    }
}
