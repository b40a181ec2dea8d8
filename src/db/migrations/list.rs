//! The embedded migrations, and the statements of their files.

/// A migration. build.rs lists those in the folder `migrations`.
pub(super) struct Migration {
    /// Its name: `001_create_workflow_executions`.
    pub(super) name: &'static str,
    /// The text of up.sql.
    pub(super) up: &'static str,
    /// The text of down.sql.
    pub(super) down: &'static str,
    /// False if its metadata.toml says so, because it builds indexes CONCURRENTLY.
    pub(super) runs_in_transaction: bool,
}

/// All migrations, in their order.
pub(super) const ALL: &[Migration] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

impl Migration {
    /// Returns its number: `001`.
    pub(super) fn version(&self) -> &'static str {
        let parts = self.name.split_once('_');
        parts.map_or(self.name, |(version, _)| version)
    }
}

/// Returns the statements of a file, without the comments before them. Knows strings, quoted
/// identifiers and `--` comments; the migrations use nothing else that may contain a semicolon.
pub(super) fn statements(sql: &str) -> impl Iterator<Item = &str> {
    let mut found = Vec::new();
    let mut begin = 0;
    // The character that ends the string, identifier or comment.
    let mut end = None;
    for (at, c) in sql.char_indices() {
        let rest = sql.get(at..).unwrap_or_default();
        match end {
            Some(closing) if c == closing => end = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => end = Some(c),
            None if rest.starts_with("--") => end = Some('\n'),
            None if c == ';' => {
                found.extend(sql.get(begin..at));
                begin = at + 1;
            }
            None => {}
        }
    }
    found.extend(sql.get(begin..));
    let found = found.into_iter().map(without_leading_comments);
    found.filter(|statement| !statement.is_empty())
}

fn without_leading_comments(statement: &str) -> &str {
    let mut rest = statement.trim();
    while rest.starts_with("--") {
        let (_, after) = rest.split_once('\n').unwrap_or_default();
        rest = after.trim_start();
    }
    rest
}

/// Returns whether a statement must not run in a transaction.
pub(super) fn is_concurrent(statement: &str) -> bool {
    let mut words = statement.split_whitespace();
    matches!(words.next(), Some("CREATE" | "DROP")) && words.take(3).any(|it| it == "CONCURRENTLY")
}

/// Returns the name of the index that a statement builds CONCURRENTLY.
pub(super) fn built_index(statement: &str) -> Option<&str> {
    let words = statement.strip_prefix("CREATE ")?;
    let words = words.strip_prefix("UNIQUE ").unwrap_or(words);
    let words = words.strip_prefix("INDEX CONCURRENTLY IF NOT EXISTS ")?;
    words.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_split_at_semicolons_outside_of_strings_and_comments() {
        let sql =
            "-- One; two.\nSELECT 'it''s; -- fine', \"a;b\"; -- three;\n\n  SELECT 2\n;\n-- four";
        let expected = ["SELECT 'it''s; -- fine', \"a;b\"", "SELECT 2"];
        assert_eq!(statements(sql).collect::<Vec<_>>(), expected);
    }

    /// Such a migration begins again after an interruption, so a statement may find its work done.
    #[test]
    fn every_statement_outside_of_a_transaction_can_run_again() {
        let repeatable = [
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS ",
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ",
            "DROP INDEX CONCURRENTLY IF EXISTS ",
            "CREATE TABLE IF NOT EXISTS ",
            "DROP TABLE IF EXISTS ",
            "COMMENT ON ",
        ];
        for migration in ALL {
            for statement in statements(migration.up).chain(statements(migration.down)) {
                let name = migration.name;
                if migration.runs_in_transaction {
                    assert!(!is_concurrent(statement), "{name}: {statement}");
                } else {
                    let is_repeatable = repeatable.iter().any(|it| statement.starts_with(it));
                    assert!(is_repeatable, "{name}: {statement}");
                }
            }
            for construct in ["$$", "/*", " E'"] {
                let texts = [migration.up, migration.down].concat();
                assert!(
                    !texts.contains(construct),
                    "{}: {construct}",
                    migration.name
                );
            }
        }
    }
}
