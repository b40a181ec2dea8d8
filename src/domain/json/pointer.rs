//! Pointers to the values of a document.

use std::fmt::{self, Write};

use serde_json::{Map, Value};

/// Maximum length of a pointer in an error, in characters. Keys can have any length.
const MAX_CHARS: usize = 100;

/// A pointer to a value of a document, as in RFC 6901: `/jobs/3/name`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pointer {
    /// From the innermost value outwards.
    tokens: Vec<String>,
}

impl Pointer {
    /// Prepends the key or the index of the value around the pointer.
    pub fn prepend(&mut self, token: impl fmt::Display) {
        let token = token.to_string().replace('~', "~0").replace('/', "~1");
        self.tokens.push(token);
    }

    /// Returns a pointer to a value that nests deeper than `max` levels below `fields`, which
    /// are level 1.
    #[must_use]
    pub fn to_deeper(fields: &Map<String, Value>, max: usize) -> Option<Pointer> {
        let mut entries = fields.iter();
        entries.find_map(|(key, value)| below(key, value, max))
    }
}

fn below(token: impl fmt::Display, value: &Value, max: usize) -> Option<Pointer> {
    let mut found = match value {
        Value::Object(_) | Value::Array(_) if max <= 1 => Some(Pointer::default()),
        Value::Object(fields) => Pointer::to_deeper(fields, max - 1),
        Value::Array(values) => {
            let mut values = values.iter().enumerate();
            values.find_map(|(index, value)| below(index, value, max - 1))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }?;
    found.prepend(token);
    Some(found)
}

/// Writes control characters escaped, and cuts a long pointer visibly.
impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.tokens.iter().rev();
        let mut chars = tokens.flat_map(|token| std::iter::once('/').chain(token.chars()));
        for _ in 0..MAX_CHARS {
            match chars.next() {
                Some(c) if c.is_control() => write!(f, "{}", c.escape_default())?,
                Some(c) => f.write_char(c)?,
                None => return Ok(()),
            }
        }
        match chars.next() {
            Some(_) => f.write_char('…'),
            None => Ok(()),
        }
    }
}
