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
    /// A call failed for good.
    Refused,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Lost, "lost"),
    (Kind::Duplicated, "duplicated"),
    (Kind::WrongState, "wrong state"),
    (Kind::Journal, "journal and state disagree"),
    (Kind::Refused, "refused"),
];

impl Verdict {
    /// Notes how many rows differ. No row is no difference.
    pub fn add(&mut self, kind: Kind, what: impl Into<String>, rows: i64) {
        if rows > 0 {
            self.findings.push((kind, what.into(), rows));
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
