//! The words of an address that tokio-postgres does not know, or knows only in part.

use std::path::PathBuf;

use tokio_postgres::config::TargetSessionAttrs;

use super::{environment::Environment, words::Words};
use crate::db::tls::{Roots, SslMode, TlsSettings};

/// Takes the words of TLS.
pub(super) fn tls_settings(
    words: &mut Words,
    environment: &Environment,
    errors: &mut Vec<String>,
) -> TlsSettings {
    let roots = match words.take("sslrootcert").as_deref() {
        Some("system") => Roots::System,
        Some(path) => Roots::File(path.into()),
        None => environment
            .default_file("root.crt")
            .map_or(Roots::None, Roots::File),
    };
    let mode = words.take("sslmode");
    let mode = match mode.as_deref() {
        // Weaker modes would verify less than the word promises.
        None if roots == Roots::System => Some(SslMode::VerifyFull),
        None => Some(SslMode::Prefer),
        Some(name) => SslMode::NAMES.iter().find(|it| it.0 == name).map(|it| it.1),
    };
    let client = client_files(words, environment, errors);
    let Some(mode) = mode else {
        errors.push(
            "sslmode: expected disable, allow, prefer, require, verify-ca or verify-full"
                .to_owned(),
        );
        return TlsSettings::disabled();
    };
    if has_only_sockets(words) {
        return TlsSettings::disabled();
    }
    if roots == Roots::System && mode < SslMode::VerifyFull {
        errors.push("sslrootcert: system requires sslmode=verify-full".to_owned());
    }
    if roots == Roots::None && mode >= SslMode::VerifyCa {
        errors.push(
            "sslmode: verify-ca and verify-full require sslrootcert, a file with the root certificate, \
             or system for the roots that this machine trusts"
                .to_owned(),
        );
    }
    let is_direct = words.get("sslnegotiation") == Some("direct");
    if is_direct && mode < SslMode::Require {
        errors.push("sslnegotiation: direct requires sslmode=require or stricter".to_owned());
    }
    if words.get("channel_binding") == Some("require") && mode == SslMode::Disable {
        errors
            .push("channel_binding: require needs TLS, so another sslmode than disable".to_owned());
    }
    if mode == SslMode::Disable {
        // No file is read.
        return TlsSettings::disabled();
    }
    TlsSettings {
        mode,
        roots,
        client,
        is_direct,
    }
}

/// Returns whether all hosts are Unix sockets, for which libpq ignores the words of TLS, too.
fn has_only_sockets(words: &Words) -> bool {
    let hosts = words.get("host");
    hosts.is_some_and(|hosts| hosts.split(',').all(|host| host.starts_with('/')))
}

/// Takes the files of the client certificate and of its key.
fn client_files(
    words: &mut Words,
    environment: &Environment,
    errors: &mut Vec<String>,
) -> Option<(PathBuf, PathBuf)> {
    match (words.take("sslcert"), words.take("sslkey")) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => {
            let certificate = environment.default_file("postgresql.crt");
            certificate.zip(environment.default_file("postgresql.key"))
        }
        _ => {
            errors.push("sslcert, sslkey: set both of them or neither".to_owned());
            None
        }
    }
}

pub(super) fn is_random(words: &mut Words, errors: &mut Vec<String>) -> bool {
    match words.take("load_balance_hosts").as_deref() {
        None | Some("disable") => false,
        Some("random") => true,
        Some(_) => {
            errors.push("load_balance_hosts: expected disable or random".to_owned());
            false
        }
    }
}

pub(super) fn session_attrs(
    words: &mut Words,
    errors: &mut Vec<String>,
) -> Option<TargetSessionAttrs> {
    match words.take("target_session_attrs").as_deref() {
        None => None,
        Some("any") => Some(TargetSessionAttrs::Any),
        Some("read-write" | "primary") => Some(TargetSessionAttrs::ReadWrite),
        Some(_) => {
            errors.push(
                "target_session_attrs: expected read-write, primary or any, because the service writes"
                    .to_owned(),
            );
            None
        }
    }
}
