//! Makes text of callers fit for a line of the log, a span or a header.

/// Maximum length of a value in a line of the log, in characters.
pub const MAX_VALUE: usize = 128;

use super::unprintable::Unprintable;

/// Returns the first `max` characters of a text with "…" in place of the rest. Escapes unprintable
/// characters, which could break a line or a terminal.
#[must_use]
pub fn excerpt(text: &str, max: usize) -> String {
    let mut excerpt = String::with_capacity(text.len().min(max));
    for (index, char) in text.chars().enumerate() {
        if index >= max {
            excerpt.push('…');
            break;
        }
        match Unprintable::of(char) {
            None => excerpt.push(char),
            Some(_) => excerpt.extend(char.escape_unicode()),
        }
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_and_control_characters_escaped() {
        assert_eq!(excerpt("order 7", 7), "order 7");
        assert_eq!(excerpt("order 78", 7), "order 7…");
        assert_eq!(excerpt("ä€😀x", 3), "ä€😀…");
        assert_eq!(
            excerpt("a\nb\u{1b}[2J\u{202e}\u{200b}", 128),
            r"a\u{a}b\u{1b}[2J\u{202e}\u{200b}"
        );
    }
}
