//! Pointers to the values of a document.

use std::fmt::{self, Write};

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
