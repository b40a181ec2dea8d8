//! An address for the programs of PostgreSQL, which use libpq.

use super::{DatabaseAddress, environment::VARIABLES, words::Words};
use crate::db::tls::Roots;

/// Values for libpq that differ from its own defaults: the service writes, and does not speak Kerberos.
const DEFAULTS: [(&str, &str); 2] = [
    ("target_session_attrs", "read-write"),
    ("gssencmode", "disable"),
];

/// The settings of TCP, and their names in libpq.
const TCP: [(&str, &str); 6] = [
    ("keepalives", "keepalives"),
    ("keepalives_idle", "keepalives_idle"),
    ("keepalives_interval", "keepalives_interval"),
    ("keepalives_count", "keepalives_count"),
    ("keepalives_retries", "keepalives_count"),
    ("tcp_user_timeout", "tcp_user_timeout"),
];

/// The idle time before the first keepalive in seconds, as in the service.
const KEEPALIVES_IDLE: &str = "30";

impl DatabaseAddress {
    /// Returns the address as environment variables of libpq, with the password. Settings of TCP have no
    /// variable, see [`DatabaseAddress::libpq_tcp`].
    #[must_use]
    pub fn libpq_variables(&self) -> Vec<(&'static str, String)> {
        let mut words = self.words.clone();
        for (word, value) in DEFAULTS {
            words.set_default(word, value);
        }
        // libpq may search another home directory, and would then verify nothing.
        if let Roots::File(file) = &self.tls.settings().roots
            && let Some(file) = file.to_str()
        {
            words.set_default("sslrootcert", file);
        }
        if let Some(file) = self.password_file.as_ref().and_then(|file| file.to_str()) {
            words.set_default("passfile", file);
        }
        let variables = VARIABLES.iter();
        variables
            .filter_map(|(name, word)| Some((*name, words.get(word)?.to_owned())))
            .collect()
    }

    /// Returns the settings of TCP as pairs of words and values for libpq, which has no variables for them.
    /// Without them a lost connection is noticed after two hours.
    #[must_use]
    pub fn libpq_tcp(&self) -> String {
        let mut words = Words::default();
        for (name, word) in TCP {
            if let Some(value) = self.words.get(name) {
                words.set_default(word, value);
            }
        }
        words.set_default("keepalives_idle", KEEPALIVES_IDLE);
        pairs(words)
    }

    /// Returns the address as pairs of words and values, without the password: a `DATABASE_URL`.
    #[must_use]
    pub fn without_password(&self) -> String {
        pairs(self.words.clone())
    }

    /// Returns whether the roots of the machine verify the certificate of the server, which libpq can
    /// do only since PostgreSQL 16.
    #[must_use]
    pub fn uses_system_roots(&self) -> bool {
        self.words.get("sslrootcert") == Some("system")
    }
}

fn pairs(mut words: Words) -> String {
    words.take("password");
    let pairs = words.into_pairs().map(|(word, value)| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/:,@".contains(c);
        if value.chars().all(is_plain) {
            return format!("{word}={value}");
        }
        let value = value.replace('\\', "\\\\").replace('\'', "\\'");
        format!("{word}='{value}'")
    });
    pairs.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "postgres://al%20ice:p%40s%3Ds%27@db1,db2:6432/book?sslmode=require";

    #[test]
    fn an_address_becomes_variables_of_libpq() {
        let address: DatabaseAddress = ADDRESS.parse().unwrap();
        let mut variables = address.libpq_variables();
        variables.sort();
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            variables,
            [
                "PGDATABASE=book",
                "PGGSSENCMODE=disable",
                "PGHOST=db1,db2",
                "PGPASSWORD=p@s=s'",
                "PGPORT=,6432",
                "PGSSLMODE=require",
                "PGTARGETSESSIONATTRS=read-write",
                "PGUSER=al ice",
            ]
        );
    }

    #[test]
    fn settings_of_tcp_become_words_of_libpq() {
        let address: DatabaseAddress = ADDRESS.parse().unwrap();
        assert_eq!(address.libpq_tcp(), "keepalives_idle=30");
        let text = "host=db1 keepalives_idle=5 keepalives_retries=3 tcp_user_timeout=9000";
        let address: DatabaseAddress = text.parse().unwrap();
        assert_eq!(
            address.libpq_tcp(),
            "keepalives_count=3 keepalives_idle=5 tcp_user_timeout=9000"
        );
    }

    #[test]
    fn an_address_without_its_password_is_parsed_again() {
        let address: DatabaseAddress = ADDRESS.parse().unwrap();
        let text = address.without_password();
        assert_eq!(
            text,
            "dbname=book host=db1,db2 port=,6432 sslmode=require user='al ice'"
        );
        let again: DatabaseAddress = text.parse().unwrap();
        assert_eq!(again.to_string(), address.to_string());
    }
}
