//! Log lines of the start: the address, and the risks of an open one.

use tokio::net::TcpListener;

use super::Listeners;
use crate::{
    config::{Auth, Config},
    db::DatabaseAddress,
    util::net::is_loopback,
};

/// Logs the addresses, and a warning for each risk that --insecure accepts.
pub(super) fn log_listening(listeners: &Listeners, config: &Config) {
    if let Some(Ok(address)) = listeners.metrics.as_ref().map(TcpListener::local_addr) {
        tracing::info!("metrics on {address}");
    }
    let Ok(address) = listeners.calls.local_addr() else {
        return;
    };
    tracing::info!("listening on {address}");
    let is_local = is_loopback(address);
    if is_local && config.auth == Auth::None {
        tracing::info!("without tokens: every user of this machine can read and write all data");
    }
    if !is_local {
        for risk in risks(config.auth, config.tls.is_some()) {
            tracing::warn!("--insecure: {risk}");
        }
    }
}

/// Logs where the database is, and a warning if nothing proves that it is this one.
pub(super) fn log_database(address: &DatabaseAddress) {
    tracing::info!(hosts = %address, "using an external database");
    let hosts = address.unprotected_hosts();
    if !hosts.is_empty() {
        tracing::warn!(
            hosts = hosts.join(", "),
            "the certificate of the database is not verified, so another machine on the network path \
             may take its place; set sslmode=verify-full and sslrootcert"
        );
    }
}

/// Returns the risks of an address that other machines can reach.
fn risks(auth: Auth, has_tls: bool) -> impl Iterator<Item = &'static str> {
    let no_tokens = (auth == Auth::None)
        .then_some("without tokens, every client that connects can read and write all data");
    let no_tls = (!has_tls)
        .then_some("without TLS, anyone on the network path can read the traffic and steal tokens");
    no_tokens.into_iter().chain(no_tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tokens_and_missing_tls_are_separate_risks() {
        for (auth, has_tls, expected) in [
            (Auth::Tokens, true, &[][..]),
            (Auth::None, true, &["without tokens"]),
            (Auth::Tokens, false, &["without TLS"]),
            (Auth::None, false, &["without tokens", "without TLS"]),
        ] {
            let risks: Vec<_> = risks(auth, has_tls).collect();
            assert_eq!(risks.len(), expected.len());
            assert!(
                risks
                    .iter()
                    .zip(expected)
                    .all(|(it, part)| it.starts_with(part))
            );
        }
    }
}
