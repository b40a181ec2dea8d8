//! Prints rows of the journal.

use std::fmt::Write;

use chrono::SecondsFormat;
use prost_types::Timestamp;
use serde_core::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::{Map, Value};

use crate::{
    domain::time,
    proto::v1::FsmTransition,
    util::{excerpt::excerpt, unprintable::Unprintable},
};

/// Maximum length of a document in a line of text, in characters.
const MAX_DATA: usize = 200;

/// Colors of the terminal (SGR), without black and white, which backgrounds have.
const COLORS: [u8; 6] = [31, 32, 33, 34, 35, 36];
const DIM: u8 = 2;

/// The form in which rows are printed.
#[derive(Debug)]
pub(super) enum Printer {
    /// A JSON object for each row, with the names of the API.
    Json,
    /// A line for people.
    Text {
        has_color: bool,
        has_namespace: bool,
    },
}

impl Printer {
    /// Returns the line of a row, with its line feed. It has no characters that control a terminal,
    /// except for colors.
    pub(super) fn line(&self, row: &FsmTransition) -> String {
        match *self {
            Printer::Json => json(row),
            Printer::Text {
                has_color,
                has_namespace,
            } => {
                let style = Style { has_color };
                style.line(row, has_namespace)
            }
        }
    }
}

struct Style {
    has_color: bool,
}

impl Style {
    fn line(&self, row: &FsmTransition, has_namespace: bool) -> String {
        let shown = |text: &str| excerpt(text, usize::MAX);
        let from = row.from_state.as_deref();
        let from = from.map_or_else(|| "-".to_owned(), |state| self.state(state));
        let mut line = self.styled(
            DIM,
            &time_text(row.created_at.as_ref(), SecondsFormat::Millis),
        );
        if has_namespace {
            let _ = write!(line, "  {}", shown(&row.namespace));
        }
        let _ = write!(
            line,
            "  {}/{}  {from} → {}  {}",
            shown(&row.entity_type),
            shown(&row.entity_id),
            self.state(&row.to_state),
            shown(&row.transition_event),
        );
        if let Some(data) = data(row) {
            let data = excerpt(&data, MAX_DATA);
            let _ = write!(line, "  {}", self.styled(DIM, &data));
        }
        line.push('\n');
        line
    }

    /// Returns a state in its color. Which states are good is unknown, so the name decides.
    fn state(&self, name: &str) -> String {
        let hash = |hash: usize, byte: u8| hash.wrapping_mul(31).wrapping_add(byte.into());
        let index = name.bytes().fold(0, hash) % COLORS.len();
        let color = COLORS.get(index).copied().unwrap_or(DIM);
        self.styled(color, &excerpt(name, usize::MAX))
    }

    fn styled(&self, code: u8, text: &str) -> String {
        match self.has_color {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// Returns the document of a row as text; `None` if it is empty.
fn data(row: &FsmTransition) -> Option<String> {
    let is_omitted = row.omitted_fields.iter().any(|it| it == "transition_data");
    match document(row) {
        Some(document) => Some(Value::Object(document).to_string()),
        None => is_omitted.then(|| "(transition_data is too large to be shown)".to_owned()),
    }
}

fn document(row: &FsmTransition) -> Option<Map<String, Value>> {
    let document = row.transition_data.clone()?;
    (!document.is_empty()).then(|| document.into())
}

fn time_text(time: Option<&Timestamp>, digits: SecondsFormat) -> String {
    let time = time.and_then(|time| time::from_proto(time).ok());
    time.map_or_else(String::new, |time| time.to_rfc3339_opts(digits, true))
}

/// Returns a row as a line of JSON.
fn json(row: &FsmTransition) -> String {
    let mut line = String::new();
    let text = serde_json::to_string(&Row(row)).unwrap_or_default();
    // JSON escapes only some of them. Outside of its strings there are none.
    for char in text.chars() {
        match Unprintable::of(char) {
            None => line.push(char),
            Some(_) => {
                let mut units = [0; 2];
                for unit in char.encode_utf16(&mut units) {
                    let _ = write!(line, "\\u{unit:04x}");
                }
            }
        }
    }
    line.push('\n');
    line
}

/// A row that serializes as protobuf's JSON form does: unset fields are left out.
struct Row<'a>(&'a FsmTransition);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, target: S) -> Result<S::Ok, S::Error> {
        let Row(row) = self;
        let mut fields = target.serialize_struct("FsmTransition", 12)?;
        let texts = [
            ("id", Some(&row.id)),
            ("namespace", Some(&row.namespace)),
            ("entityId", Some(&row.entity_id)),
            ("entityType", Some(&row.entity_type)),
            ("fromState", row.from_state.as_ref()),
            ("toState", Some(&row.to_state)),
            ("transitionEvent", Some(&row.transition_event)),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                fields.serialize_field(name, text)?;
            }
        }
        if let Some(document) = document(row) {
            fields.serialize_field("transitionData", &document)?;
        }
        let created_at = time_text(row.created_at.as_ref(), SecondsFormat::AutoSi);
        fields.serialize_field("createdAt", &created_at)?;
        if let Some(id) = &row.token_id {
            fields.serialize_field("tokenId", id)?;
        }
        if !row.omitted_fields.is_empty() {
            fields.serialize_field("omittedFields", &row.omitted_fields)?;
        }
        fields.serialize_field("position", &row.position)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(data: Value) -> FsmTransition {
        let Value::Object(data) = data else {
            panic!("not an object")
        };
        FsmTransition {
            id: "7".into(),
            namespace: "demo".into(),
            entity_type: "order".into(),
            entity_id: "8".into(),
            to_state: "NEW".into(),
            transition_event: "create".into(),
            transition_data: Some(data.into()),
            created_at: Some(Timestamp {
                seconds: 1_800_000_000,
                nanos: 120_000_000,
            }),
            position: "p".into(),
            ..FsmTransition::default()
        }
    }

    const TEXT: Printer = Printer::Text {
        has_color: false,
        has_namespace: false,
    };

    #[test]
    fn a_line_has_what_is_known() {
        assert_eq!(
            TEXT.line(&row(json!({}))),
            "2027-01-15T08:00:00.120Z  order/8  - → NEW  create\n"
        );
        let moved = FsmTransition {
            from_state: Some("OLD".into()),
            ..row(json!({"by": "hand"}))
        };
        let of_many = Printer::Text {
            has_color: false,
            has_namespace: true,
        };
        assert_eq!(
            of_many.line(&moved),
            "2027-01-15T08:00:00.120Z  demo  order/8  OLD → NEW  create  {\"by\":\"hand\"}\n"
        );
        let colored = Printer::Text {
            has_color: true,
            has_namespace: false,
        };
        let line = colored.line(&moved);
        assert_eq!(line.matches("\x1b[").count(), 8, "{line:?}");
        assert!(line.ends_with("\x1b[0m\n"), "{line:?}");
    }

    #[test]
    fn json_has_the_names_of_the_api() {
        let line = Printer::Json.line(&row(json!({"n": 1, "text": "ä"})));
        let expected = r#"{"id":"7","namespace":"demo","entityId":"8","entityType":"order","toState":"NEW","transitionEvent":"create","transitionData":{"n":1,"text":"ä"},"createdAt":"2027-01-15T08:00:00.120Z","position":"p"}"#;
        assert_eq!(line, format!("{expected}\n"));
    }

    #[test]
    fn nothing_reaches_the_terminal_that_controls_it() {
        let evil = "a\x1b[2J\n\u{9b}31m\u{202e}\u{7f}b";
        let evil_row = FsmTransition {
            to_state: evil.into(),
            transition_event: evil.into(),
            entity_type: evil.into(),
            ..row(json!({evil: evil}))
        };
        for printer in [TEXT, Printer::Json] {
            let line = printer.line(&evil_row);
            let (line, end) = line.split_at(line.len() - 1);
            assert_eq!(end, "\n");
            let bad = line.chars().find(|char| Unprintable::of(*char).is_some());
            assert_eq!(bad, None, "{line}");
        }
        // JSON keeps what it escapes.
        let parsed: Value = serde_json::from_str(&Printer::Json.line(&evil_row)).unwrap();
        assert_eq!(parsed["transitionData"], json!({evil: evil}));
        assert_eq!(parsed["toState"], evil);
    }
}
