//! Settings of the database.

use std::path::PathBuf;

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser},
};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::SslMode;

use super::ConfigErrors;
use crate::util::error_chain::error_chain;

/// The database to use.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseSettings {
    /// Use this PostgreSQL, version 14 or newer: postgres://user:password@host:5432/name.
    /// Default: create and run a private PostgreSQL in the data directory.
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        global = true
    )]
    database_url: Option<SecretString>,

    /// Keep the private PostgreSQL in this directory. Default: /var/lib/bridgebook for root, else
    /// bridgebook in the user's data directory, such as ~/.local/share/bridgebook.
    // clap itself would report an empty path alone, without the other errors.
    #[arg(
        long,
        env = "BRIDGEBOOK_DATA_DIR",
        value_name = "DIR",
        value_parser = OsStringValueParser::new().map(PathBuf::from),
        global = true
    )]
    data_dir: Option<PathBuf>,
}

/// Where the database runs.
#[derive(Debug, Clone)]
pub enum DatabaseSource {
    /// A PostgreSQL that others run. The URL may hold a password.
    Url(SecretString),
    /// A private PostgreSQL in this data directory.
    Embedded(PathBuf),
}

impl DatabaseSettings {
    /// Checks the settings. The value is a placeholder if an error is noted.
    pub fn check(self, errors: &mut ConfigErrors) -> DatabaseSource {
        self.source().unwrap_or_else(|error| {
            errors.push(error);
            DatabaseSource::Embedded(PathBuf::new())
        })
    }

    fn source(self) -> Result<DatabaseSource, String> {
        // Some tools set a variable to nothing instead of unsetting it. An empty URL counts as unset
        // only beside a data directory: alone, it may be a secret that was not filled in.
        let is_set =
            |url: &SecretString| self.data_dir.is_none() || !url.expose_secret().is_empty();
        match (self.database_url.filter(is_set), self.data_dir) {
            (Some(url), None) => match url_error(url.expose_secret()) {
                None => Ok(DatabaseSource::Url(url)),
                Some(error) => Err(format!("--database-url: {error}")),
            },
            (Some(_), Some(_)) => Err(
                "--database-url, --data-dir: set only one of them; the URL names an external \
                 PostgreSQL, the directory holds a private one"
                    .to_owned(),
            ),
            (None, Some(data_dir)) if data_dir.as_os_str().is_empty() => {
                Err("--data-dir: expected a directory, got an empty text".to_owned())
            }
            (None, Some(data_dir)) => Ok(DatabaseSource::Embedded(data_dir)),
            (None, None) => crate::embedded::default_data_dir()
                .map(DatabaseSource::Embedded)
                .map_err(|error| format!("--data-dir: {error}")),
        }
    }
}

/// Returns what is wrong with a database URL. The text never shows the URL, which may hold a
/// password.
fn url_error(url: &str) -> Option<String> {
    if url.is_empty() {
        return Some("DATABASE_URL is empty; unset it to use a private PostgreSQL".to_owned());
    }
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Some("expected a URL such as postgres://user:password@host:5432/name".to_owned());
    }
    if has_unescaped_password(url) {
        return Some(
            "the password must be percent-encoded: @ as %40, / as %2F, ? as %3F, # as %23"
                .to_owned(),
        );
    }
    match url.parse::<tokio_postgres::Config>() {
        Err(error) => Some(error_chain(&error)),
        Ok(config) if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() => Some(
            "the URL names no host; expected postgres://user:password@host:5432/name, or \
             postgres:///name?host=/run/postgresql for a Unix socket"
                .to_owned(),
        ),
        Ok(config) if config.get_ssl_mode() == SslMode::Require => Some(
            "sslmode=require is not supported: connections to the database have no TLS yet"
                .to_owned(),
        ),
        Ok(_) => None,
    }
}

/// Returns whether a URL has more than one `@` before its parameters. Everything after the
/// first one, a part of the password, would be taken for the host, and be logged as such.
fn has_unescaped_password(url: &str) -> bool {
    let is_parameter = |text: &str| text.contains('=');
    let Some((before, after)) = url.split_once('@') else {
        return false;
    };
    let in_host = after
        .split_once('@')
        .is_some_and(|(host, _)| !is_parameter(host));
    let in_user = before
        .split_once(['?', '#'])
        .is_some_and(|(_, rest)| !is_parameter(rest));
    in_host || in_user
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_is_not_percent_encoded_is_rejected_and_not_shown() {
        for url in [
            "postgres://user:pa@sswd@db1/book",
            "postgres://user:pa?sswd@db1/book",
            "postgres://user:pa#sswd@db1/book",
            "postgres://user:pa@x/sswd@db1/book",
        ] {
            let error = url_error(url).unwrap();
            assert!(
                error.contains("percent-encoded") && !error.contains("sswd"),
                "{error}"
            );
        }
        for url in [
            "postgres://user:pa%40sswd@db1/book",
            "postgres://user@db1/book?application_name=a@b",
            "postgres:///book?host=/run/postgresql",
        ] {
            assert_eq!(url_error(url), None, "{url}");
        }
    }
}
