//! The differences between what was acknowledged, stored and read.

use std::fmt;

/// The differences found.
#[derive(Debug, Default)]
pub struct Verdict {
    findings: Vec<(Kind, String, i64)>,
}

/// The kinds of differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Acknowledged but not stored.
    Lost,
    /// Stored or counted more than once.
    Duplicated,
    /// Stored in another state than acknowledged.
    WrongState,
    /// The journal contradicts the stored state.
    Journal,
    /// A reader has not read a row of the journal.
    Missed,
    /// A reader has read a row of the journal more than once.
    Repeated,
    /// A reader has read a row of the journal after a later one.
    OutOfOrder,
    /// A reader has read a row that the journal does not have.
    Unknown,
    /// The totals of a consumer, or its position, contradict the journal.
    Miscounted,
    /// A call or a stream failed for good.
    Refused,
}

const KINDS: [(Kind, &str); 10] = [
    (Kind::Lost, "lost"),
    (Kind::Duplicated, "duplicated"),
    (Kind::WrongState, "wrong state"),
    (Kind::Journal, "journal and state disagree"),
    (Kind::Missed, "missed by a reader"),
    (Kind::Repeated, "read more than once"),
    (Kind::OutOfOrder, "read out of order"),
    (Kind::Unknown, "read, but not in the journal"),
    (Kind::Miscounted, "totals and journal disagree"),
    (Kind::Refused, "refused"),
];

impl Verdict {
    /// Notes how many rows differ. No row is no difference.
    pub fn add(&mut self, kind: Kind, what: impl Into<String>, rows: i64) {
        if rows > 0 {
            self.findings.push((kind, what.into(), rows));
        }
    }

    /// Notes rows that differ, and names the first one.
    pub fn add_rows(&mut self, kind: Kind, what: &str, rows: &[String]) {
        if let Some(first) = rows.first() {
            self.add(kind, format!("{what}, first {first}"), rows.len() as i64);
        }
    }

    /// Returns whether there is no difference.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| difference | rows |\n|---|--:|")?;
        for (kind, name) in KINDS {
            let counts = self.findings.iter().filter(|(it, _, _)| *it == kind);
            let count: i64 = counts.map(|(_, _, count)| count).sum();
            writeln!(f, "| {name} | {count} |")?;
        }
        for (kind, what, count) in &self.findings {
            match kind {
                Kind::Refused => writeln!(f, "refused: {what}")?,
                _ => writeln!(f, "{what}: {count}")?,
            }
        }
        Ok(())
    }
}
