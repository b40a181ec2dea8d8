//! The one list of characters that make a text look like another one.
//!
//! `workflow_service.proto` states the rule for callers: names must not contain them. Logs and errors
//! escape them.

/// A kind of characters that are not printable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unprintable {
    /// A control character, such as a line feed or an escape.
    Control,
    /// A separator of lines or paragraphs.
    Separator,
    /// A control of the writing direction, which changes how its neighbours are shown.
    Direction,
    /// A character that takes no space, or only space.
    Invisible,
}

impl Unprintable {
    /// Returns the kind of a character; `None` if it is printable.
    ///
    /// Joiners, marks of the writing direction, and the selectors and tags of emoji are invisible,
    /// too. They are accepted, because Persian, Hebrew and emoji need them.
    #[must_use]
    pub fn of(character: char) -> Option<Self> {
        match character {
            '\u{2028}' | '\u{2029}' => Some(Unprintable::Separator),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Some(Unprintable::Direction),
            '\u{ad}'
            | '\u{34f}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{2060}'..='\u{2065}'
            | '\u{206a}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{fffe}'..='\u{ffff}' => Some(Unprintable::Invisible),
            other => other.is_control().then_some(Unprintable::Control),
        }
    }

    /// Returns the name of the kind, for an error.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Unprintable::Control => "control character",
            Unprintable::Separator => "line or paragraph separator",
            Unprintable::Direction => "control of the writing direction",
            Unprintable::Invisible => "invisible character",
        }
    }
}
