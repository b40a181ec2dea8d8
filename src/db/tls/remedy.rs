//! What to do about a failed TLS handshake with PostgreSQL.

use std::{error::Error, io};

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError, OtherError};

/// Returns whether TLS failed, or the server has none. tokio-postgres has only a text for that.
pub fn is_tls_failure(error: &tokio_postgres::Error) -> bool {
    let is_handshake = error
        .to_string()
        .starts_with("error performing TLS handshake");
    is_handshake || tls_error(error).is_some()
}

/// Returns what to do about an error of TLS; `None` for other errors. `has_certificate` is whether the
/// client presents one.
pub fn remedy(error: &tokio_postgres::Error, has_certificate: bool) -> Option<&'static str> {
    if has_no_tls(error) {
        return Some("turn on ssl in PostgreSQL, or set sslmode=disable if the network is trusted");
    }
    let advice = match tls_error(error)? {
        TlsError::InvalidCertificate(certificate) => of_certificate(certificate),
        TlsError::AlertReceived(AlertDescription::HandshakeFailure) if !has_certificate => {
            "the server and this client have no cipher or curve in common"
        }
        TlsError::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown,
        ) => {
            "the server refuses the client's certificate; set sslcert and sslkey to one that its \
             ssl_ca_file has signed"
        }
        TlsError::PeerIncompatible(_)
        | TlsError::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the server must speak TLS 1.2 or newer"
        }
        TlsError::InvalidMessage(_) => "the server does not speak TLS on this port",
        _ => return None,
    };
    Some(advice)
}

fn of_certificate(error: &CertificateError) -> &'static str {
    match error {
        // The second one if the root of the same name has another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "no certificate in sslrootcert has signed the server's; set sslrootcert to the file with \
             its root, or to `system` for those that this machine trusts"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "connect by a name of its subjectAltName (its common name is not used), or set \
             sslmode=verify-ca, which accepts any name"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew the server's certificate, and check the clock of this machine"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "check the clock of this machine"
        }
        CertificateError::Other(OtherError(other)) if is(&**other, "CaUsedAsEndEntity") => {
            "the server presents the certificate of an authority (CA:TRUE) as its own; have the \
             authority sign one for the server"
        }
        // OpenSSL makes certificates without extensions as version 1.
        CertificateError::Other(OtherError(other)) if is(&**other, "UnsupportedCertVersion") => {
            "sign the server's certificate again as X.509 version 3, with a subjectAltName"
        }
        _ => "correct the server's certificate, or sslrootcert",
    }
}

/// Returns whether an error of webpki, whose type rustls does not export, has this name.
fn is(error: &(dyn Error + Send + Sync), name: &str) -> bool {
    format!("{error:?}").contains(name)
}

/// Returns whether the server has no TLS. tokio-postgres has only a text for that.
fn has_no_tls(error: &tokio_postgres::Error) -> bool {
    let cause = error.source().map(ToString::to_string);
    cause.is_some_and(|cause| cause == "server does not support TLS")
}

/// Returns the error of TLS in the causes of an error.
fn tls_error(error: &tokio_postgres::Error) -> Option<&TlsError> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // The error inside an `io::Error` is not among its sources.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|it| it.downcast_ref()) {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
