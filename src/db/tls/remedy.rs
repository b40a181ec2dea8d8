//! What to do about a failed TLS handshake with PostgreSQL.

use std::{error::Error, io};

use chrono::DateTime;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, Error as TlsError, OtherError, pki_types::UnixTime,
};

/// Returns whether an error or one of its causes is an error of TLS.
pub fn is_tls_error(error: &(dyn Error + 'static)) -> bool {
    tls_error(error).is_some()
}

/// Returns what to do about an error of TLS; `None` for other errors. `has_certificate` is whether the
/// client presents one.
pub fn remedy(error: &(dyn Error + 'static), has_certificate: bool) -> Option<&'static str> {
    let advice = match tls_error(error)? {
        TlsError::InvalidCertificate(certificate) => of_certificate(certificate),
        TlsError::AlertReceived(AlertDescription::CertificateExpired) => {
            "the client's certificate (sslcert) has expired; renew it"
        }
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

/// Returns when a certificate of the server expires or begins to be valid, if that is the error.
pub fn validity(error: &(dyn Error + 'static)) -> Option<String> {
    let date = |time: UnixTime| {
        let seconds = i64::try_from(time.as_secs()).ok()?;
        Some(DateTime::from_timestamp(seconds, 0)?.format("%Y-%m-%d %H:%M:%SZ"))
    };
    match tls_error(error)? {
        TlsError::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => Some(
            format!("the server's certificate expired at {}", date(*not_after)?),
        ),
        TlsError::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        }) => Some(format!(
            "the server's certificate is valid from {}",
            date(*not_before)?
        )),
        _ => None,
    }
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

/// Returns the error of TLS in an error and its causes.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    let mut cause = Some(error);
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
