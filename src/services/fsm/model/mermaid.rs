//! Diagrams of machines, in the language of Mermaid (`stateDiagram-v2`).

use std::{collections::BTreeMap, fmt::Write};

use super::Definition;

/// Words that Mermaid does not parse as the name of a state.
const KEYWORDS: &[&str] = &[
    "as",
    "choice",
    "class",
    "classdef",
    "click",
    "default",
    "direction",
    "end",
    "fork",
    "hide",
    "href",
    "join",
    "note",
    "root",
    "scale",
    "state",
    "style",
];

impl Definition {
    /// Returns the diagram of the machine.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let names = self.names();
        let name = |state: &str| names.get(state).cloned().unwrap_or_default();
        let mut out = String::from("stateDiagram-v2\n");
        // Writing to a String cannot fail.
        for (state, name) in names.iter().filter(|(state, name)| state != name) {
            let _ = writeln!(out, "    state \"{state}\" as {name}");
        }
        let _ = writeln!(out, "    [*] --> {}", name(&self.initial_state));
        for it in &self.moves {
            let (from, to) = (name(&it.from_state), name(&it.to_state));
            let _ = writeln!(out, "    {from} --> {to} : {}", label(&it.transition_event));
        }
        for state in &self.terminal_states {
            let _ = writeln!(out, "    {} --> [*]", name(state));
        }
        out
    }

    /// Returns the name of each state in the diagram: the state itself, or a number if Mermaid
    /// would not parse it as a name.
    fn names(&self) -> BTreeMap<String, String> {
        let states = self.states().into_iter().enumerate();
        let names = states.map(|(number, state)| {
            let name = match is_name(state) {
                true => state.to_owned(),
                false => format!("state_{number}"),
            };
            (state.to_owned(), name)
        });
        names.collect()
    }
}

fn is_name(state: &str) -> bool {
    state.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !state.starts_with("state_")
        && !KEYWORDS.contains(&state.to_ascii_lowercase().as_str())
}

/// Escapes the colon, which a label must not contain, as a numeric entity.
fn label(event: &str) -> String {
    event.replace(':', "#58;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_diagram_of_the_workflow_lifecycle_has_every_move() {
        assert_eq!(
            Definition::of_workflows().mermaid(),
            "stateDiagram-v2
    [*] --> PENDING
    PENDING --> PROCESSING : process
    PENDING --> FAILED : fail
    PENDING --> CANCELLED : cancel
    PROCESSING --> COMPLETED : complete
    PROCESSING --> FAILED : fail
    PROCESSING --> CANCELLED : cancel
    FAILED --> PROCESSING : retry
    COMPLETED --> [*]
    CANCELLED --> [*]
"
        );
    }

    #[test]
    fn names_that_mermaid_would_misparse_get_an_alias() {
        let machine = Definition {
            initial_state: "end".into(),
            terminal_states: vec!["a:b/c".into()],
            moves: vec![super::super::FsmMove {
                from_state: "end".into(),
                transition_event: "go:on".into(),
                to_state: "a:b/c".into(),
            }],
        };
        assert_eq!(
            machine.mermaid(),
            "stateDiagram-v2
    state \"a:b/c\" as state_0
    state \"end\" as state_1
    [*] --> state_1
    state_1 --> state_0 : go#58;on
    state_0 --> [*]
"
        );
    }
}
