//! The environment of libpq: its variables, the service file, and the directory of its files.

use std::{env, path::PathBuf};

use super::words::Words;
use crate::util::{error_chain::error_chain, file_watch};

/// The variables, and the words that they set.
pub(super) const VARIABLES: [(&str, &str); 29] = [
    ("PGAPPNAME", "application_name"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGCLIENTENCODING", "client_encoding"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGDATABASE", "dbname"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGOPTIONS", "options"),
    ("PGPASSFILE", "passfile"),
    ("PGPASSWORD", "password"),
    ("PGPORT", "port"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGSERVICE", "service"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLCOMPRESSION", "sslcompression"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGUSER", "user"),
];

/// The variables that name a database. Without one of them, and without a URL, the private one is used.
const NAMES: [&str; 3] = ["PGHOST", "PGHOSTADDR", "PGSERVICE"];

/// Environment variables and the files that they name.
#[derive(Debug, Clone, Copy)]
pub struct Environment {
    variable: fn(&str) -> Option<String>,
    is_empty: fn(&str) -> bool,
}

impl Environment {
    /// Returns the environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Environment {
            variable: |name| {
                // An empty PGSSLMODE is an error, as for libpq. Other empty variables count as unset.
                let is_set = |it: &String| !it.is_empty() || name == "PGSSLMODE";
                env::var(name).ok().filter(is_set)
            },
            is_empty: |name| env::var_os(name).is_some_and(|it| it.is_empty()),
        }
    }

    /// Returns an environment without variables, for an address that is complete.
    #[must_use]
    pub fn empty() -> Self {
        Environment {
            variable: |_| None,
            is_empty: |_| false,
        }
    }

    /// Returns whether the variables name a database.
    #[must_use]
    pub fn names_a_database(&self) -> bool {
        NAMES.iter().any(|name| (self.variable)(name).is_some())
    }

    /// Returns a variable that would name a database, but is empty. It may be a secret that was not filled
    /// in.
    #[must_use]
    pub fn empty_name(&self) -> Option<&'static str> {
        let is_empty = |name: &&str| (self.is_empty)(name);
        NAMES.into_iter().find(is_empty)
    }

    /// Returns whether a variable completes addresses.
    #[must_use]
    pub fn has_variables(&self) -> bool {
        VARIABLES
            .iter()
            .any(|(name, _)| (self.variable)(name).is_some())
    }

    /// Sets the words that an address does not, first by its service, then by the variables.
    pub(super) fn complete(&self, words: &mut Words) -> Result<(), String> {
        let service = words
            .take("service")
            .or_else(|| (self.variable)("PGSERVICE"));
        if let Some(service) = service {
            self.add_service(&service, words)?;
        }
        let variables = VARIABLES.iter().filter(|(_, word)| *word != "service");
        for (name, word) in variables {
            if let Some(value) = (self.variable)(name) {
                words.set_default(word, value);
            }
        }
        // The name of the account, with which the password file is searched, too.
        let account = (self.variable)("USER").or_else(|| (self.variable)("LOGNAME"));
        if let Some(account) = account {
            words.set_default("user", account);
        }
        Ok(())
    }

    /// Returns the path of a file that libpq reads by default, if it exists: `~/.postgresql/root.crt`.
    pub(super) fn default_file(&self, name: &str) -> Option<PathBuf> {
        self.home_file(&format!(".postgresql/{name}"))
            .filter(|it| it.exists())
    }

    /// Returns the path of the password file.
    pub(super) fn default_password_file(&self) -> Option<PathBuf> {
        self.home_file(".pgpass")
    }

    fn home_file(&self, name: &str) -> Option<PathBuf> {
        Some(PathBuf::from((self.variable)("HOME")?).join(name))
    }

    /// Sets the words of a service.
    fn add_service(&self, service: &str, words: &mut Words) -> Result<(), String> {
        let path = (self.variable)("PGSERVICEFILE").map(PathBuf::from);
        let path = path.or_else(|| self.home_file(".pg_service.conf"));
        let path = path.ok_or("there is no service file: neither PGSERVICEFILE nor HOME is set")?;
        let text = file_watch::read(&path).map_err(|error| error_chain(&error))?;
        let text = String::from_utf8(text)
            .map_err(|_| format!("{} is not valid UTF-8", path.display()))?;
        let mut is_in_section = false;
        let mut is_found = false;
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
                is_in_section = name == service;
                is_found |= is_in_section;
            } else if is_in_section && !line.starts_with('#') && !line.is_empty() {
                let (word, value) = line.split_once('=').ok_or_else(|| {
                    format!(
                        "{}: a line of {service:?} is not a word=value",
                        path.display()
                    )
                })?;
                words.set_default(word.trim(), value.trim());
            }
        }
        match is_found {
            true => Ok(()),
            false => Err(format!("{} has no service {service:?}", path.display())),
        }
    }
}
