//! Faults of credentials.

/// What is wrong with a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The call has no credential.
    #[error(
        "the credential is missing; send it in the header authorization: Bearer bb_<id>_<secret>"
    )]
    Missing,
    /// The header does not parse, or is repeated.
    #[error("expected exactly one header authorization: Bearer bb_<id>_<secret>")]
    Malformed,
    /// The token does not exist, or its secret is another one.
    #[error("the credential is unknown; check that it is complete and for this service")]
    Unknown,
    /// The token has expired.
    #[error("the token has expired; ask the operator for a new one")]
    Expired,
    /// The token has been revoked.
    #[error("the token has been revoked; ask the operator for a new one")]
    Revoked,
    /// The client certificate is valid but not mapped to a token.
    #[error(
        "the subject of the client certificate is not mapped to a token; send a credential, or ask \
         the operator to map the subject"
    )]
    CertificateUnmapped,
}

impl CredentialError {
    pub(super) fn reason(self) -> &'static str {
        match self {
            CredentialError::Missing => "CREDENTIAL_MISSING",
            CredentialError::Malformed => "CREDENTIAL_MALFORMED",
            CredentialError::Unknown => "CREDENTIAL_UNKNOWN",
            CredentialError::Expired => "CREDENTIAL_EXPIRED",
            CredentialError::Revoked => "CREDENTIAL_REVOKED",
            CredentialError::CertificateUnmapped => "CERTIFICATE_UNMAPPED",
        }
    }
}
