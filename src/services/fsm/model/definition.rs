//! The definition of a machine: its states, and the moves between them.

use std::collections::{BTreeMap, BTreeSet};

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    serialize::{self, Output, ToSql},
    sql_types::Jsonb,
};
use serde_json::{Value, json};

use crate::{
    domain::{
        error::{AllowedMove, RefusedMove},
        journal::START_EVENT,
    },
    rpc::validate::Validator,
    services::workflow::model::{LIFECYCLE, State},
};

/// A move of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsmMove {
    /// The state that the move leaves.
    pub from_state: String,
    /// The event that causes the move.
    pub transition_event: String,
    /// The state that the move enters.
    pub to_state: String,
}

/// The states in which entities start and end, and the moves in between.
#[derive(Debug, Clone, Default, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Jsonb)]
pub struct Definition {
    /// The state in which every entity starts.
    pub initial_state: String,
    /// The states that no move leaves.
    pub terminal_states: Vec<String>,
    /// The moves.
    pub moves: Vec<FsmMove>,
}

impl Definition {
    /// Returns the built-in lifecycle of workflows. A workflow may also start in PROCESSING,
    /// which a machine, with its one initial state, cannot express.
    #[must_use]
    pub fn of_workflows() -> Self {
        let moves = LIFECYCLE.iter().map(|(from, event, to)| FsmMove {
            from_state: from.as_str().to_owned(),
            transition_event: (*event).to_owned(),
            to_state: to.as_str().to_owned(),
        });
        let ends = |state: &&State| state.allowed().next().is_none();
        let terminal_states = State::ALL.iter().filter(ends);
        Definition {
            initial_state: State::Pending.as_str().to_owned(),
            terminal_states: terminal_states.map(|it| it.as_str().to_owned()).collect(),
            moves: moves.collect(),
        }
    }

    /// Returns the states that the moves and the terminal states name.
    #[must_use]
    pub fn states(&self) -> BTreeSet<&str> {
        let ends = self
            .moves
            .iter()
            .flat_map(|it| [&it.from_state, &it.to_state]);
        let states = ends.chain(&self.terminal_states);
        states.map(String::as_str).collect()
    }

    /// Returns the size of all names together, in bytes.
    #[must_use]
    pub fn text_len(&self) -> usize {
        let moves = self.moves.iter();
        let moves =
            moves.map(|it| it.from_state.len() + it.transition_event.len() + it.to_state.len());
        let ends = self.terminal_states.iter().map(String::len);
        moves.chain(ends).sum()
    }

    /// Notes every contradiction between the parts of the definition.
    pub fn check(&self, check: &mut Validator) {
        let states = self.states();
        let has_initial = states.contains(self.initial_state.as_str());
        if !has_initial {
            let initial = &self.initial_state;
            let rule = format!("must be a state of moves or terminal_states, got {initial}");
            check.violation("initial_state", rule);
        }
        let reachable = self.reachable();
        let mut seen = BTreeSet::new();
        for (index, state) in self.terminal_states.iter().enumerate() {
            let field = format!("terminal_states[{index}]");
            if !seen.insert(state) {
                check.violation(&field, format!("must not repeat the state {state}"));
            } else if has_initial && !reachable.contains(state.as_str()) {
                check.violation(&field, unreachable(state, &self.initial_state));
            }
        }
        let mut targets = BTreeMap::new();
        for (index, it) in self.moves.iter().enumerate() {
            let FsmMove {
                from_state,
                transition_event,
                to_state,
            } = it;
            let field = format!("moves[{index}]");
            if self.terminal_states.contains(from_state) {
                let rule = format!("must not leave the terminal state {from_state}");
                check.violation(&field, rule);
            }
            if has_initial && !reachable.contains(from_state.as_str()) {
                check.violation(&field, unreachable(from_state, &self.initial_state));
            }
            let first = targets.insert((from_state, transition_event), to_state);
            if let Some(first) = first {
                let rule = format!("must not repeat the event {transition_event} of {from_state}");
                check.violation(&field, format!("{rule}, which already leads to {first}"));
            }
        }
    }

    /// Returns the states that can be reached from the initial state.
    fn reachable(&self) -> BTreeSet<&str> {
        let mut targets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for it in &self.moves {
            targets
                .entry(&it.from_state)
                .or_default()
                .push(&it.to_state);
        }
        let mut reachable = BTreeSet::new();
        let mut open = vec![self.initial_state.as_str()];
        while let Some(state) = open.pop() {
            if reachable.insert(state) {
                open.extend(targets.get(state).into_iter().flatten());
            }
        }
        reachable
    }

    /// Returns the moves that leave a state, in the order of the definition.
    pub fn moves_from(&self, state: &str) -> impl Iterator<Item = &FsmMove> {
        self.moves.iter().filter(move |it| it.from_state == state)
    }

    /// Finds the move from `current`, `None` for a new entity, by `event` to `to`; each of the
    /// two may be left to the machine. Returns the event and the target state.
    #[must_use]
    pub fn find<'a>(
        &'a self,
        current: Option<&str>,
        event: Option<&'a str>,
        to: Option<&str>,
    ) -> Option<(&'a str, &'a str)> {
        let is_target = |state: &str| to.is_none_or(|to| to == state);
        let Some(current) = current else {
            let start = (event.unwrap_or(START_EVENT), self.initial_state.as_str());
            return is_target(&self.initial_state).then_some(start);
        };
        let mut moves = self.moves_from(current);
        let found = moves.find(|it| {
            is_target(&it.to_state) && event.is_none_or(|event| event == it.transition_event)
        })?;
        Some((&found.transition_event, &found.to_state))
    }

    /// Adds the moves that are allowed from the current state.
    #[must_use]
    pub fn with_allowed_moves(&self, refused: RefusedMove) -> RefusedMove {
        let allowed = match refused.current.as_str() {
            // Any event starts an entity.
            "" => vec![AllowedMove {
                event: None,
                state: self.initial_state.clone(),
            }],
            current => {
                let moves = self.moves_from(current);
                moves
                    .map(|it| AllowedMove {
                        event: Some(it.transition_event.clone()),
                        state: it.to_state.clone(),
                    })
                    .collect()
            }
        };
        RefusedMove { allowed, ..refused }
    }
}

fn unreachable(state: &str, initial: &str) -> String {
    format!("must be reachable: no moves lead from {initial} to {state}")
}

impl ToSql<Jsonb, Pg> for Definition {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let moves = self.moves.iter().map(|it| {
            json!({
                "from_state": it.from_state,
                "transition_event": it.transition_event,
                "to_state": it.to_state,
            })
        });
        let value = json!({
            "initial_state": self.initial_state,
            "terminal_states": self.terminal_states,
            "moves": moves.collect::<Vec<_>>(),
        });
        ToSql::<Jsonb, Pg>::to_sql(&value, &mut out.reborrow())
    }
}

impl FromSql<Jsonb, Pg> for Definition {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let value: Value = FromSql::<Jsonb, Pg>::from_sql(value)?;
        read(&value).ok_or_else(|| "the column has no valid definition of a machine".into())
    }
}

fn read(value: &Value) -> Option<Definition> {
    let text = |value: &Value, key| Some(value.get(key)?.as_str()?.to_owned());
    let terminal_states = value.get("terminal_states")?.as_array()?.iter();
    let moves = value.get("moves")?.as_array()?.iter();
    Some(Definition {
        initial_state: text(value, "initial_state")?,
        terminal_states: terminal_states
            .map(|state| Some(state.as_str()?.to_owned()))
            .collect::<Option<_>>()?,
        moves: moves
            .map(|it| {
                Some(FsmMove {
                    from_state: text(it, "from_state")?,
                    transition_event: text(it, "transition_event")?,
                    to_state: text(it, "to_state")?,
                })
            })
            .collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(initial: &str, terminal: &[&str], moves: &[(&str, &str, &str)]) -> Definition {
        Definition {
            initial_state: initial.to_owned(),
            terminal_states: terminal.iter().map(ToString::to_string).collect(),
            moves: moves
                .iter()
                .map(|(from, event, to)| FsmMove {
                    from_state: (*from).to_owned(),
                    transition_event: (*event).to_owned(),
                    to_state: (*to).to_owned(),
                })
                .collect(),
        }
    }

    fn invalid_fields(definition: &Definition) -> Vec<String> {
        let mut check = Validator::new(crate::domain::limits::ContentLimits::default());
        definition.check(&mut check);
        let violations = check
            .finish(())
            .err()
            .map(|it| it.listed)
            .unwrap_or_default();
        violations.into_iter().map(|it| it.field).collect()
    }

    #[test]
    fn every_contradiction_is_a_violation_of_its_field() {
        let good = definition("A", &["C"], &[("A", "go", "B"), ("B", "end", "C")]);
        assert!(invalid_fields(&good).is_empty());
        let bad = definition(
            "A",
            &["C", "C", "X"],
            &[
                ("A", "go", "C"),
                ("C", "back", "A"),
                ("A", "go", "A"),
                ("Y", "go", "A"),
            ],
        );
        assert_eq!(
            invalid_fields(&bad),
            [
                "terminal_states[1]",
                "terminal_states[2]",
                "moves[1]",
                "moves[2]",
                "moves[3]"
            ]
        );
        assert_eq!(
            invalid_fields(&definition("Z", &[], &[("A", "go", "A")])),
            ["initial_state"]
        );
        assert_eq!(
            invalid_fields(&definition("A", &[], &[])),
            ["initial_state"]
        );
        assert!(invalid_fields(&definition("A", &["A"], &[])).is_empty());
        assert!(invalid_fields(&Definition::of_workflows()).is_empty());
    }

    #[test]
    fn a_move_is_found_by_its_event_or_its_target_or_both() {
        let machine = definition(
            "A",
            &[],
            &[("A", "go", "B"), ("A", "jump", "B"), ("B", "go", "A")],
        );
        let find = |current, event, to| machine.find(current, event, to);
        assert_eq!(find(None, None, None), Some(("start", "A")));
        assert_eq!(find(None, Some("go"), Some("A")), Some(("go", "A")));
        assert_eq!(find(None, Some("go"), Some("B")), None);
        assert_eq!(find(Some("A"), Some("jump"), None), Some(("jump", "B")));
        assert_eq!(find(Some("A"), None, Some("B")), Some(("go", "B")));
        assert_eq!(find(Some("A"), Some("go"), Some("A")), None);
        assert_eq!(find(Some("C"), Some("go"), None), None);
    }
}
