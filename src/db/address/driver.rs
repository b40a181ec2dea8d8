//! The words of an address that tokio-postgres reads, and those that have no effect.

use std::time::Duration;

use tokio_postgres::{
    Config,
    config::{SslMode as DriverSslMode, SslNegotiation},
};

use super::words::Words;

/// Words for an address that does not set its own. Each host has 1 s to accept the connection: a server
/// answers in milliseconds, but it may be the third host. An idle connection is probed after 30 s (the
/// default of Linux is two hours).
const DEFAULTS: [(&str, &str); 2] = [("connect_timeout", "1"), ("keepalives_idle", "30")];

/// A connection without acknowledgement is dead after this time, in milliseconds, unless the address
/// sets another.
const TCP_USER_TIMEOUT_MS: u64 = 10_000;

/// The words that tokio-postgres reads.
const DRIVER_WORDS: [&str; 11] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "options",
    "sslnegotiation",
    "user",
];

/// The words that are taken out before.
const OWN_WORDS: [&str; 12] = [
    "host",
    "hostaddr",
    "load_balance_hosts",
    "passfile",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// Words of libpq that are not supported.
const UNSUPPORTED: [&str; 12] = [
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "service",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
];

/// Words of libpq that have no effect here, and their values that ask for nothing else.
const IGNORED: [(&str, &[&str]); 7] = [
    ("client_encoding", &["utf8", "UTF8", "UTF-8", "auto"]),
    ("gssencmode", &["disable", "prefer"]),
    ("sslcertmode", &["allow"]),
    ("sslcompression", &["0"]),
    ("sslsni", &["1"]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("ssl_max_protocol_version", &["TLSv1.3"]),
];

/// Makes the settings that all hosts share. tokio-postgres reads the words that are left.
pub(super) fn config(mut words: Words, errors: &mut Vec<String>) -> Config {
    let password = words.take("password");
    if let Some(count) = words.take("keepalives_count") {
        words.set_default("keepalives_retries", count);
    }
    if let Some(name) = words.take("fallback_application_name") {
        words.set_default("application_name", name);
    }
    for (word, value) in DEFAULTS {
        words.set_default(word, value);
    }
    for (word, values) in IGNORED {
        let value = words.take(word);
        if value.is_some_and(|value| !values.contains(&value.as_str())) {
            errors.push(format!("{word}: expected {}", values.join(" or ")));
        }
    }
    let timeout = words.take("tcp_user_timeout");
    let timeout = timeout.map_or(Ok(TCP_USER_TIMEOUT_MS), |it| it.parse());
    let mut text = String::new();
    for (word, value) in words.into_pairs() {
        if !DRIVER_WORDS.contains(&word.as_str()) {
            errors.push(unsupported(&word));
            continue;
        }
        let value = value.replace('\\', "\\\\").replace('\'', "\\'");
        let pair = format!("{word}='{value}' ");
        match pair.parse::<Config>() {
            Ok(_) => text.push_str(&pair),
            Err(_) => errors.push(format!("{word}: expected {}", expected(&word))),
        }
    }
    // Each pair of it is valid.
    let mut config: Config = text.parse().unwrap_or_default();
    // `connect` begins TLS itself, or leaves it out, before tokio-postgres sees the stream.
    config.ssl_mode(DriverSslMode::Require);
    config.ssl_negotiation(SslNegotiation::Direct);
    match timeout {
        Ok(timeout) => drop(config.tcp_user_timeout(Duration::from_millis(timeout))),
        Err(_) => errors.push("tcp_user_timeout: expected a number of milliseconds".to_owned()),
    }
    if let Some(password) = password {
        config.password(password);
    }
    config
}

/// Returns what the driver expects of a word that it refuses.
fn expected(word: &str) -> &'static str {
    match word {
        "channel_binding" => "disable, prefer or require",
        "sslnegotiation" => "postgres or direct",
        "keepalives" => "0 or 1",
        word if word.starts_with("keepalives") => "a number of seconds, or of probes",
        "connect_timeout" => "a number of seconds",
        _ => "another value",
    }
}

/// Returns the error of a word that is not supported. An unknown one is not shown, because it may be a
/// part of a password. A known one that is similar is.
fn unsupported(word: &str) -> String {
    /// How many first letters are the same.
    const SIMILAR: usize = 4;
    if UNSUPPORTED.contains(&word) {
        return format!("{word}: not supported");
    }
    let known = DRIVER_WORDS.iter().chain(&OWN_WORDS);
    let begin = word.get(..SIMILAR).map(str::to_lowercase);
    let mut similar = known.filter(|it| it.get(..SIMILAR) == begin.as_deref());
    let hint = similar.next().map(|it| format!("; {it} is similar"));
    format!(
        "the address has a word that libpq does not know{}",
        hint.unwrap_or_default()
    )
}
