//! What a start tells.

use tokio::net::TcpListener;

use crate::{
    config::{Auth, Config},
    util::net::is_loopback,
};

/// Says where we listen, and what that means.
pub(super) fn announce(listener: &TcpListener, config: &Config) {
    let Ok(address) = listener.local_addr() else {
        return;
    };
    tracing::info!("listening on {address}");
    let is_local = is_loopback(address);
    if is_local && config.auth == Auth::None {
        tracing::info!("without tokens: whoever is on this machine can read and write everything");
    }
    if !is_local {
        for danger in dangers(config.auth, config.tls.is_some()) {
            tracing::warn!("--insecure: {danger}");
        }
    }
}

/// What others can do where they can connect.
fn dangers(auth: Auth, has_tls: bool) -> impl Iterator<Item = &'static str> {
    let no_tokens = (auth == Auth::None)
        .then_some("without tokens, whoever can connect can read and write everything");
    let no_tls = (!has_tls).then_some(
        "without TLS, whoever is on the way can read along, and take tokens for themselves",
    );
    no_tokens.into_iter().chain(no_tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_danger_is_named() {
        for (auth, has_tls, expected) in [
            (Auth::Tokens, true, &[][..]),
            (Auth::None, true, &["without tokens"]),
            (Auth::Tokens, false, &["without TLS"]),
            (Auth::None, false, &["without tokens", "without TLS"]),
        ] {
            let dangers: Vec<_> = dangers(auth, has_tls).collect();
            assert_eq!(dangers.len(), expected.len());
            assert!(
                dangers
                    .iter()
                    .zip(expected)
                    .all(|(it, part)| it.starts_with(part))
            );
        }
    }
}
