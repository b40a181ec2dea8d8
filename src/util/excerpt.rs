//! Makes text of callers fit for a line of the log, a span or a header.

/// Maximum length of a value in a line of the log, in characters.
pub const MAX_VALUE: usize = 128;

/// Returns the first `max` characters of a text with "…" in place of the rest. Escapes control
/// characters, which could break a line or a terminal.
#[must_use]
pub fn excerpt(text: &str, max: usize) -> String {
    let mut excerpt = String::with_capacity(text.len().min(max));
    for (index, char) in text.chars().enumerate() {
        if index >= max {
            excerpt.push('…');
            break;
        }
        match is_safe(char) {
            true => excerpt.push(char),
            false => excerpt.extend(char.escape_unicode()),
        }
    }
    excerpt
}

/// Returns whether a character neither ends a line nor changes how its neighbours are shown.
fn is_safe(char: char) -> bool {
    !char.is_control()
        && !matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
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
            excerpt("a\nb\u{1b}[2J\u{202e}", 128),
            r"a\u{a}b\u{1b}[2J\u{202e}"
        );
    }
}
