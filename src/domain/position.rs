//! Positions in the journal, as the API prints them.
//!
//! A position names one row of a namespace: the order of its commit, and its id. So it needs no
//! table of its own to stay valid: a position is good for as long as its row is there, or is the last
//! one that retention removed. A row that a failover or a restore has lost is not there, whatever rows
//! got its numbers since.
//!
//! The text is 48 characters of an alphabet in the order of ASCII. So positions of a namespace compare
//! as texts in the order of their rows.

use std::fmt;

use base64::{
    Engine,
    alphabet::Alphabet,
    engine::{GeneralPurpose, general_purpose::NO_PAD},
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::id::TransitionId;

/// The digits of a position, in the order of ASCII. All are safe in URLs and shells.
const DIGITS: GeneralPurpose = {
    let digits = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
    match Alphabet::new(digits) {
        Ok(alphabet) => GeneralPurpose::new(&alphabet, NO_PAD),
        Err(_) => panic!("the digits are no alphabet"),
    }
};

/// The first byte of every position. It makes the text begin with "p", and leaves others for another
/// order, such as a counter for each namespace.
const COMMIT_ORDER: u8 = 0xd4;

/// Size of the check at the end, in bytes. It tells a damaged position, or that of another namespace,
/// before the database is asked.
const CHECK: usize = 3;

/// Size of a position, in bytes.
const BYTES: usize = 1 + 8 + 8 + 16 + CHECK;

/// The place of a row in the journal, behind all rows of lower positions. It orders first by
/// transaction, then by the order within it. The default is before the first row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The number of the transaction that wrote the row: `fsm_transitions.xid`.
    pub xid: u64,
    /// The number of the row among all rows: `fsm_transitions.seq`.
    pub seq: i64,
    /// The id of the row.
    pub transition_id: TransitionId,
}

impl Position {
    /// Returns whether the position is before the first row.
    #[must_use]
    pub fn is_origin(&self) -> bool {
        *self == Position::default()
    }

    /// Returns the bound before the first row of a transaction. It is the position of no row.
    #[must_use]
    pub fn before_transaction(xid: u64) -> Self {
        Position {
            xid,
            ..Position::default()
        }
    }

    /// Returns the id of the row; `None` if the position is that of no row.
    #[must_use]
    pub fn row_id(self) -> Option<TransitionId> {
        Some(self.transition_id).filter(|id| *id != TransitionId::default())
    }

    /// Returns the number of the transaction for a parameter of a statement.
    #[must_use]
    pub fn xid_for_sql(self) -> i64 {
        // PostgreSQL's numbers of transactions have 62 bits.
        i64::try_from(self.xid).unwrap_or(i64::MAX)
    }

    /// Returns the text for the API.
    #[must_use]
    pub fn to_text(self, namespace: &str) -> String {
        let mut bytes = self.to_bytes();
        bytes.extend(check(&bytes, namespace));
        DIGITS.encode(bytes)
    }

    /// Returns the text of a position that there may not be; empty if there is none.
    #[must_use]
    pub fn text_of(position: Option<Self>, namespace: &str) -> String {
        position.map_or_else(String::new, |position| position.to_text(namespace))
    }

    /// Makes a position for a test.
    #[cfg(test)]
    pub fn for_test(xid: u64, seq: i64, id: u128) -> Self {
        Position {
            xid,
            seq,
            transition_id: TransitionId(Uuid::from_u128(id)),
        }
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.push(COMMIT_ORDER);
        bytes.extend(self.xid.to_be_bytes());
        // Identity columns count from 1.
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.transition_id.0.into_bytes());
        bytes
    }
}

/// A position that a caller sent, before its namespace is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenPosition {
    position: Position,
    check: [u8; CHECK],
}

impl GivenPosition {
    /// Parses the text of [`Position::to_text`]. Returns `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = DIGITS.decode(text).ok()?;
        let (&kind, rest) = bytes.split_first()?;
        let (xid, rest) = rest.split_first_chunk()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let (id, check) = rest.split_first_chunk()?;
        let position = Position {
            xid: u64::from_be_bytes(*xid),
            seq: i64::from_be_bytes(*seq),
            transition_id: TransitionId(Uuid::from_bytes(*id)),
        };
        let check = check.try_into().ok()?;
        // PostgreSQL's numbers of transactions have 62 bits, and its bigint has a sign.
        let is_storable = i64::try_from(position.xid).is_ok() && position.seq >= 0;
        (kind == COMMIT_ORDER && is_storable).then_some(GivenPosition { position, check })
    }

    /// Returns the position, if it belongs to a namespace.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Option<Position> {
        let expected = check(&self.position.to_bytes(), namespace);
        (expected == self.check).then_some(self.position)
    }

    /// Returns the position, of whichever namespace it is.
    #[must_use]
    pub fn of_any(&self) -> Position {
        self.position
    }
}

/// Returns the check of a position. It is no secret: the row that a position names is looked up in its
/// namespace.
fn check(position: &[u8], namespace: &str) -> [u8; CHECK] {
    let hash = Sha256::new_with_prefix(position)
        .chain_update(namespace)
        .finalize();
    let mut check = [0; CHECK];
    check.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    check
}

impl fmt::Display for GivenPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.position.to_bytes();
        bytes.extend(self.check);
        f.write_str(&DIGITS.encode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_compare_in_the_order_of_the_journal() {
        let ordered = [
            Position::default(),
            Position::for_test(0, 1, u128::MAX),
            Position::for_test(0, 2, 7),
            Position::for_test(0, i64::MAX, 7),
            Position::for_test(1, 1, 7),
            Position::for_test(255, 3, 7),
            Position::for_test(256, 2, 7),
            Position::for_test(i64::MAX as u64, 1, 7),
        ];
        let texts = ordered.map(|position| position.to_text("demo"));
        assert!(texts.is_sorted(), "{texts:?}");
        for (text, position) in texts.iter().zip(ordered) {
            assert_eq!(text.len(), 48);
            assert!(text.starts_with('p'), "{text}");
            let given = GivenPosition::parse(text).unwrap();
            assert_eq!(given.of("demo"), Some(position));
            assert_eq!(given.of("demo2"), None);
            assert_eq!(given.of_any(), position);
            assert_eq!(given.to_string(), *text);
        }
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let text = Position::for_test(70_000, 90_000, 5).to_text("demo");
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'7' { b'8' } else { b'7' };
            let other = String::from_utf8(other).unwrap();
            let parsed = GivenPosition::parse(&other).and_then(|given| given.of("demo"));
            assert_eq!(parsed, None, "{other}");
        }
    }

    #[test]
    fn other_texts_are_no_positions() {
        let text = Position::for_test(1, 1, 1).to_text("demo");
        for bad in [
            "",
            "p",
            "0",
            "\0",
            "p position",
            &text[1..],
            &format!("{text}p"),
            &format!("{text}="),
            &"z".repeat(48),
        ] {
            assert_eq!(GivenPosition::parse(bad), None, "{bad:?}");
        }
    }
}
