//! The lines that `pg_dump` and `pg_restore` write to their standard error.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};
use tokio::time::timeout;

use crate::util::progress::Progress;

pub(super) const PG_DUMP: &str = "pg_dump";
pub(super) const PG_RESTORE: &str = "pg_restore";

/// Reads the output of a program to its end. Returns it without the lines about progress.
pub(super) async fn read(
    stderr: impl AsyncBufRead + Unpin,
    progress: Option<&Progress>,
) -> io::Result<String> {
    /// The interval of log lines about one large table.
    const INTERVAL: Duration = Duration::from_secs(10);
    let mut lines = stderr.lines();
    let mut kept = String::new();
    loop {
        let line = match timeout(INTERVAL, lines.next_line()).await {
            Ok(line) => line?,
            Err(_elapsed) => {
                progress.inspect(|it| it.go_on());
                continue;
            }
        };
        let Some(line) = line else {
            return Ok(kept);
        };
        if let Some(item) = item_of(&line) {
            progress.inspect(|it| it.item(item));
        }
        if !is_progress(&line) {
            kept.push_str(without_values(&line));
            kept.push('\n');
        }
    }
}

/// Returns the table or index that a line about progress names, of which the work may take long:
/// `pg_dump: dumping contents of table "public.x"`.
fn item_of(line: &str) -> Option<&str> {
    const BEFORE: [&str; 4] = [
        "dumping contents of table",
        "data for table",
        "creating INDEX",
        "creating CONSTRAINT",
    ];
    let (before, name) = line.split_once(" \"")?;
    let is_long = BEFORE.iter().any(|it| before.ends_with(it));
    let name = name.trim_end_matches('"');
    is_long.then(|| name.strip_prefix("public.").unwrap_or(name))
}

/// Returns a line of an error without the values of a row: `CONTEXT:  COPY api_tokens, line 5`.
fn without_values(line: &str) -> &str {
    const NUMBER: &str = ", line ";
    const FAILING: &str = "Failing row contains";
    if line.starts_with("CONTEXT:  COPY ")
        && let Some((before, after)) = line.split_once(NUMBER)
    {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let end = before.len() + NUMBER.len() + digits;
        return line.get(..end).unwrap_or(before);
    }
    match line.split_once(FAILING) {
        Some((before, _)) => before,
        None => line,
    }
}

/// Returns whether a line only tells what the program does: `pg_dump: reading schemas`.
fn is_progress(line: &str) -> bool {
    const OTHERS: [&str; 4] = ["error:", "warning:", "detail:", "hint:"];
    let of_program = [PG_DUMP, PG_RESTORE].map(|program| line.strip_prefix(program));
    let text = of_program.into_iter().flatten().next();
    let text = text.and_then(|text| text.strip_prefix(": "));
    text.is_some_and(|text| !OTHERS.iter().any(|other| text.starts_with(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_about_progress_are_recognised() {
        for (line, item, progress) in [
            ("pg_dump: reading schemas", None, true),
            (
                "pg_dump: dumping contents of table \"public.workflow_steps\"",
                Some("workflow_steps"),
                true,
            ),
            (
                "pg_restore: processing data for table \"public.api_tokens\"",
                Some("api_tokens"),
                true,
            ),
            ("pg_restore: creating TABLE \"public.x\"", None, true),
            (
                "pg_restore: creating INDEX \"public.idx_workflow_steps_workflow_id\"",
                Some("idx_workflow_steps_workflow_id"),
                true,
            ),
            ("pg_restore: error: could not read", None, false),
            ("DETAIL:  Key exists.", None, false),
        ] {
            assert_eq!((item_of(line), is_progress(line)), (item, progress));
        }
    }

    #[test]
    fn the_values_of_rows_are_left_out() {
        for (line, kept) in [
            (
                "CONTEXT:  COPY api_tokens, line 5: \"1\tdigest, line 6\"",
                "CONTEXT:  COPY api_tokens, line 5",
            ),
            (
                "CONTEXT:  COPY api_tokens, line 12, column id: \"digest\"",
                "CONTEXT:  COPY api_tokens, line 12",
            ),
            ("DETAIL:  Failing row contains (1, digest).", "DETAIL:  "),
            (
                "pg_restore: error: could not read, line 5: x",
                "pg_restore: error: could not read, line 5: x",
            ),
        ] {
            assert_eq!(without_values(line), kept);
        }
    }
}
