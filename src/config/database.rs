//! Settings of the database.

use std::path::PathBuf;

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser},
};
use secrecy::{ExposeSecret, SecretString};

use super::ConfigErrors;
use crate::db::address::{DatabaseAddress, Environment};

/// The database to use.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseSettings {
    /// Use this PostgreSQL, version 14 or newer: postgres://user:password@host:5432/name. The words and
    /// variables of libpq apply, such as sslmode and PGPASSFILE.
    /// Default: the database of PGHOST or PGSERVICE, or else create and run a private PostgreSQL in the
    /// data directory.
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
    /// A PostgreSQL that others run.
    External(DatabaseAddress),
    /// A private PostgreSQL in this data directory.
    Embedded(PathBuf),
}

impl DatabaseSettings {
    /// Checks the settings. The value is a placeholder if an error is noted.
    pub fn check(self, errors: &mut ConfigErrors) -> DatabaseSource {
        self.source(errors)
            .unwrap_or_else(|| DatabaseSource::Embedded(PathBuf::new()))
    }

    /// Returns the database. Returns `None` if errors are noted.
    fn source(self, errors: &mut ConfigErrors) -> Option<DatabaseSource> {
        // Some tools set a variable to nothing instead of unsetting it. An empty URL counts as unset
        // only beside a data directory: alone, it may be a secret that was not filled in.
        let is_set =
            |url: &SecretString| self.data_dir.is_none() || !url.expose_secret().is_empty();
        let environment = Environment::of_process();
        let url = match (self.database_url.filter(is_set), self.data_dir) {
            (Some(_), Some(_)) => {
                errors.push(
                    "--database-url, --data-dir: set only one of them; the URL names an external \
                     PostgreSQL, the directory holds a private one",
                );
                return None;
            }
            (Some(url), None) if url.expose_secret().is_empty() => {
                errors.push(
                    "--database-url: DATABASE_URL is empty; unset it to use a private PostgreSQL",
                );
                return None;
            }
            (Some(url), None) => url,
            (None, None) if environment.names_a_database() => {
                if let Some(data_dir) = private_database() {
                    errors.push(format!(
                        "--database-url: PGHOST, PGHOSTADDR or PGSERVICE names a database, and {} holds \
                         a private one; unset the variable, or set --database-url or --data-dir",
                        data_dir.display()
                    ));
                    return None;
                }
                "postgres://".into()
            }
            (None, None) if let Some(name) = environment.empty_name() => {
                errors.push(format!(
                    "--database-url: {name} is empty; unset it to use a private PostgreSQL"
                ));
                return None;
            }
            (None, Some(data_dir)) if data_dir.as_os_str().is_empty() => {
                errors.push("--data-dir: expected a directory, got an empty text");
                return None;
            }
            (None, Some(data_dir)) => return Some(DatabaseSource::Embedded(data_dir)),
            (None, None) => match crate::embedded::default_data_dir() {
                Ok(data_dir) => return Some(DatabaseSource::Embedded(data_dir)),
                Err(error) => {
                    errors.push(format!("--data-dir: {error}"));
                    return None;
                }
            },
        };
        match DatabaseAddress::parse(url.expose_secret(), &environment) {
            Ok(address) => Some(DatabaseSource::External(address)),
            Err(error) => {
                let source = match environment.has_variables() {
                    true => "--database-url or a PG variable",
                    false => "--database-url",
                };
                for error in error.0 {
                    errors.push(format!("{source}: {error}"));
                }
                None
            }
        }
    }
}

/// Returns the default data directory, if it holds a database. A variable of libpq must not hide it.
fn private_database() -> Option<PathBuf> {
    let data_dir = crate::embedded::default_data_dir().ok()?;
    let has_cluster = crate::embedded::require_cluster(&data_dir).is_ok();
    has_cluster.then_some(data_dir)
}
