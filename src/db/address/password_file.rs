//! The password file of libpq, with one line per server: `host:port:database:user:password`.
//! <https://www.postgresql.org/docs/current/libpq-pgpass.html>

use std::{os::unix::fs::PermissionsExt, path::Path};

use secrecy::SecretString;

use crate::util::{error_chain::error_chain, file_watch};

/// The permissions of other accounts, of which the file must have none.
const OTHERS: u32 = 0o077;

/// A connection, as the file names it.
pub(super) struct Login<'a> {
    pub(super) host: &'a str,
    pub(super) port: &'a str,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// Returns the password of the first line that matches, or why there is none. A file that other accounts
/// can read is ignored, as libpq does.
pub(super) fn password(path: &Path, login: &Login<'_>) -> Result<SecretString, String> {
    let text = file_watch::read(path).map_err(|error| error_chain(&error))?;
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    let path = path.display();
    if metadata.permissions().mode() & OTHERS != 0 {
        return Err(format!("other accounts may read {path}; chmod 600"));
    }
    let text = String::from_utf8(text).map_err(|_| format!("{path} is not valid UTF-8"))?;
    let password = find(&text, login).map(SecretString::from);
    password.ok_or_else(|| format!("no line of {path} matches"))
}

fn find(text: &str, login: &Login<'_>) -> Option<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(fields).find_map(|fields| {
        let [host, port, database, user, password] = <[String; 5]>::try_from(fields).ok()?;
        let expected = [login.host, login.port, login.database, login.user];
        let is_match = [host, port, database, user]
            .iter()
            .zip(expected)
            .all(|(field, expected)| field == "*" || field == expected);
        is_match.then_some(password)
    })
}

/// Splits a line at its colons. A backslash escapes a colon or a backslash.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match (char, fields.last_mut()) {
            (':', _) => fields.push(String::new()),
            ('\\', Some(field)) => field.extend(chars.next()),
            (other, Some(field)) => field.push(other),
            (_, None) => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_matches_has_the_password() {
        let text = "# comment\n\
                    db1:5432:book:alice:one\n\
                    too:few\n\
                    *:6432:*:alice:t\\:w\\\\o\n\
                    db1:*:*:*:three";
        let password = |host, port, user| {
            let database = "book";
            find(
                text,
                &Login {
                    host,
                    port,
                    database,
                    user,
                },
            )
        };
        assert_eq!(password("db1", "5432", "alice").as_deref(), Some("one"));
        assert_eq!(password("db2", "6432", "alice").as_deref(), Some("t:w\\o"));
        assert_eq!(password("db1", "6432", "bob").as_deref(), Some("three"));
        assert_eq!(password("db2", "5432", "alice"), None);
    }
}
