//! The words of an address, such as `host` and `sslmode`, from a URL or from key=value pairs.
//!
//! The grammar is that of libpq:
//! <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>. Errors never contain
//! a value, which may be a password.

use std::{collections::BTreeMap, iter::Peekable, str::Chars};

use percent_encoding::percent_decode_str;

/// The error of a NUL character, which PostgreSQL would take for the end of a value.
const NUL: &str = "a value contains a NUL character";

/// The schemes of a URL.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// The words of an address, each with its value. Lists of hosts and ports are separated by commas.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Words(BTreeMap<String, String>);

impl Words {
    /// Parses an address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(address: &str) -> Result<Self, String> {
        // A secret in a file often ends with a newline.
        let address = address.trim();
        match SCHEMES.iter().find_map(|it| address.strip_prefix(it)) {
            Some(rest) => parse_url(rest),
            None if begins_with_word(address) => parse_pairs(address),
            None => Err(
                "expected a URL such as postgres://user:password@host:5432/name, or pairs such as \
                 host=db1 user=bridgebook"
                    .to_owned(),
            ),
        }
    }

    /// Sets a word that is not set yet.
    pub(super) fn set_default(&mut self, word: &str, value: impl Into<String>) {
        if self.get(word).is_none() {
            self.set(word, value.into());
        }
    }

    /// Returns the value of a word.
    pub(super) fn get(&self, word: &str) -> Option<&str> {
        self.0.get(word).map(String::as_str)
    }

    /// Removes a word, and returns its value.
    pub(super) fn take(&mut self, word: &str) -> Option<String> {
        self.0.remove(word)
    }

    /// Returns all words and their values.
    pub(super) fn into_pairs(self) -> impl Iterator<Item = (String, String)> {
        self.0.into_iter()
    }

    /// Sets a word. An empty value leaves it unset, as in libpq, which refuses an empty `sslmode`.
    fn set(&mut self, word: &str, value: String) {
        if value.is_empty() && word != "sslmode" {
            return;
        }
        // JDBC's word, which libpq accepts, too.
        let (word, value) = match (word, value.as_str()) {
            ("ssl", "true") => ("sslmode", "require".to_owned()),
            _ => (word, value),
        };
        self.0.insert(word.to_owned(), value);
    }
}

/// Parses a URL without its scheme: `user:password@host:port,host:port/name?word=value`.
fn parse_url(url: &str) -> Result<Words, String> {
    if has_unescaped_password(url) {
        return Err(
            "the password must be percent-encoded: @ as %40, / as %2F, ? as %3F, # as %23, \
             % as %25"
                .to_owned(),
        );
    }
    let mut words = Words::default();
    let (before, parameters) = url.split_once('?').unwrap_or((url, ""));
    let (authority, name) = before.split_once('/').unwrap_or((before, ""));
    let (user, hosts) = authority.split_once('@').unwrap_or(("", authority));
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let (hosts, ports) = hosts_and_ports(hosts)?;
    for (word, value) in [
        ("user", user),
        ("password", password),
        ("port", &ports),
        ("dbname", name),
    ] {
        if !value.is_empty() {
            words.set(word, decode(value)?);
        }
    }
    words.set("host", hosts);
    for parameter in parameters.split('&').filter(|it| !it.is_empty()) {
        let (word, value) = parameter
            .split_once('=')
            .ok_or("a parameter after the question mark has no value")?;
        let word = decode(word)?;
        words.set(&word, decode(value)?);
    }
    Ok(words)
}

/// Splits `host:port,host:port` into the hosts and the ports.
fn hosts_and_ports(text: &str) -> Result<(String, String), String> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for host in text.split(',') {
        let (host, rest) = match host.strip_prefix('[') {
            Some(ipv6) => ipv6
                .split_once(']')
                .ok_or("an IPv6 address has no closing bracket")?,
            None => host.split_at(host.find(':').unwrap_or(host.len())),
        };
        let host = decode(host)?;
        if host.contains(',') {
            return Err("a host must not contain a comma".to_owned());
        }
        hosts.push(host);
        ports.push(rest.strip_prefix(':').unwrap_or(rest));
    }
    let has_ports = ports.iter().any(|port| !port.is_empty());
    let ports = if has_ports {
        ports.join(",")
    } else {
        String::new()
    };
    Ok((hosts.join(","), ports))
}

fn decode(text: &str) -> Result<String, String> {
    let mut escapes = text.split('%').skip(1);
    let is_escape = |it: &str| it.len() >= 2 && it.bytes().take(2).all(|it| it.is_ascii_hexdigit());
    if !escapes.all(is_escape) {
        return Err(
            "a % in the URL is not followed by two hexadecimal digits; write %25 for %".to_owned(),
        );
    }
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| "a part of the URL is not valid UTF-8".to_owned())?;
    match decoded.contains('\0') {
        true => Err(NUL.to_owned()),
        false => Ok(decoded.into_owned()),
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
        .split_once(['?', '#', '/'])
        .is_some_and(|(_, rest)| !is_parameter(rest));
    in_host || in_user
}

/// Parses `word = value word='a value'`.
fn parse_pairs(text: &str) -> Result<Words, String> {
    let mut words = Words::default();
    let mut chars = text.chars().peekable();
    loop {
        skip_spaces(&mut chars);
        if chars.peek().is_none() {
            return Ok(words);
        }
        let mut word = String::new();
        while let Some(char) = chars.next_if(|it| *it != '=' && !it.is_whitespace()) {
            word.push(char);
        }
        skip_spaces(&mut chars);
        // It may be a part of a password that is not in quotes.
        if chars.next() != Some('=') || !is_word(&word) {
            return Err("expected word=value; a value with spaces must be in quotes".to_owned());
        }
        skip_spaces(&mut chars);
        let value = parse_value(&mut chars).ok_or("a value has no closing quote")?;
        if value.contains('\0') {
            return Err(NUL.to_owned());
        }
        words.set(&word, value);
    }
}

fn skip_spaces(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|it| it.is_whitespace()).is_some() {}
}

/// Parses a value, which may be in single quotes. A backslash escapes the next character. Returns
/// `None` if a quote is not closed.
fn parse_value(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let is_quoted = chars.next_if_eq(&'\'').is_some();
    let mut value = String::new();
    loop {
        match chars.next() {
            None => return (!is_quoted).then_some(value),
            Some('\'') if is_quoted => return Some(value),
            Some(char) if !is_quoted && char.is_whitespace() => return Some(value),
            Some('\\') => value.extend(chars.next()),
            Some(char) => value.push(char),
        }
    }
}

/// Returns whether an address begins with a word and its value. A URL with another scheme does not.
fn begins_with_word(address: &str) -> bool {
    let word = address.split_once('=').map(|(word, _)| word.trim());
    word.is_some_and(is_word)
}

fn is_word(text: &str) -> bool {
    let is_part = |it: char| it.is_ascii_lowercase() || it == '_';
    !text.is_empty() && text.chars().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::DatabaseAddress;

    fn pairs(address: &str) -> Vec<(String, String)> {
        Words::parse(address).unwrap().into_pairs().collect()
    }

    fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = pairs.iter();
        pairs
            .map(|(word, value)| ((*word).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_url_and_pairs_say_the_same() {
        let words = [
            ("dbname", "bo ok"),
            ("host", "db1,2001:db8::1"),
            ("password", "p@ s'\\"),
            ("port", "5432,6432"),
            ("sslmode", "verify-full"),
            ("user", "a"),
        ];
        let url =
            "postgres://a:p%40%20s'%5C@db1:5432,[2001:db8::1]:6432/bo%20ok?sslmode=verify-full";
        let text = "host = db1,2001:db8::1 port='5432,6432' user=a password='p@ s\\'\\\\' \
                    dbname=bo\\ ok sslmode=verify-full";
        assert_eq!(pairs(url), expected(&words));
        assert_eq!(pairs(text), expected(&words));
    }

    #[test]
    fn parts_of_a_url_may_be_missing() {
        assert_eq!(pairs("postgresql://"), expected(&[]));
        assert_eq!(
            pairs("postgres:///b?host=/run/x"),
            expected(&[("dbname", "b"), ("host", "/run/x")])
        );
        assert_eq!(
            pairs("postgres://db1,db2"),
            expected(&[("host", "db1,db2")])
        );
        assert_eq!(
            pairs("postgres://db1,db2:1"),
            expected(&[("host", "db1,db2"), ("port", ",1")])
        );
        assert_eq!(
            pairs("postgres://h?ssl=true"),
            expected(&[("host", "h"), ("sslmode", "require")])
        );
    }

    #[test]
    fn errors_show_no_value() {
        for address in [
            "postgres://user:pa@sswd@db1/book",
            "postgres://user:pa?sswd@db1/book",
            "postgres://user:pa#sswd@db1/book",
            "postgres://user:pa@x/sswd@db1/book",
            "postgres://user:pa/sswd@db1/book",
            "postgres://user:%FFsswd@db1/book",
            "postgres://user:%sswd@db1/book",
            "host=postgres://user:sswd@db1/book user=a",
            "host=db1;password=sswd",
            "host=db1 user=a dbname=postgres://user:sswd@db1/book",
            "postgres://user:%00sswd@db1/book",
            "postgres://user@db1/book?sswd",
            "postgres://user@[sswd/book",
            "host=db1 password='sswd",
            "host=db1 password sswd",
            "sswd",
            "postgressql://user:sswd@db1/book?sslmode=require",
            "Postgres://user:sswd@db1/book?sslmode=require",
            "jdbc:postgresql://user:sswd@db1/book?sslmode=require",
            "\"postgres://user:sswd@db1/book?sslmode=require\"",
            "postgres://user:pa?sswd=1@db1/book",
            "host=db1 password=a sswd=b",
            "host=db1 port=sswd",
            "host=db1 channel_binding=sswd",
            "host=db1 sslmode=sswd",
            "host=db1 hostaddr=sswd",
            "host=db1 tcp_user_timeout=sswd",
        ] {
            let error = address.parse::<DatabaseAddress>().unwrap_err().to_string();
            assert!(!error.contains("sswd"), "{address}: {error}");
        }
    }
}
