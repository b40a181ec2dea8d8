//! Credentials: `bb_<id>_<secret>`, with the token's id in 32 hexadecimal digits and its
//! secret in 64. A double click selects a whole credential, and secret scanners find it by
//! the pattern `bb_[0-9a-f]{32}_[0-9a-f]{64}`.

use std::fmt;

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    serialize::{self, Output, ToSql},
    sql_types::Bytea,
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::domain::id::TokenId;

/// Prefix of every credential.
const PREFIX: &str = "bb_";
/// Length of a secret in bytes: 256 bits.
const SECRET_BYTES: usize = 32;
/// Length of an id in hexadecimal digits.
const ID_DIGITS: usize = 32;

/// The secret of a token, known only to its holder.
pub struct Secret([u8; SECRET_BYTES]);

/// Hides the secret, which would otherwise end up in a log.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Generates a secret.
    ///
    /// # Errors
    /// If the operating system provides no random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Secret(bytes))
    }

    /// Returns the digest, which is all that the database stores.
    #[must_use]
    pub fn digest(&self) -> SecretDigest {
        SecretDigest(Sha256::digest(self.0).into())
    }
}

/// The SHA-256 of a secret (`api_tokens.secret_sha256`).
#[derive(Debug, Clone, Copy, AsExpression, FromSqlRow)]
#[diesel(sql_type = Bytea)]
pub struct SecretDigest([u8; SECRET_BYTES]);

impl SecretDigest {
    /// Returns whether this is the digest of a secret, in constant time.
    #[must_use]
    pub fn is_of(&self, secret: &Secret) -> bool {
        self.0.ct_eq(&secret.digest().0).into()
    }
}

impl ToSql<Bytea, Pg> for SecretDigest {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Bytea, Pg>::to_sql(self.0.as_slice(), out)
    }
}

impl FromSql<Bytea, Pg> for SecretDigest {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(value.as_bytes().try_into()?))
    }
}

/// A credential: a token's id and its secret.
#[derive(Debug)]
pub struct Credential {
    /// The token's id.
    pub id: TokenId,
    /// The token's secret.
    pub secret: Secret,
}

impl Credential {
    /// Parses a credential. Returns `None` if the text is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let id = Some(id).filter(|id| id.len() == ID_DIGITS)?;
        Some(Credential {
            id: TokenId(Uuid::try_parse(id).ok()?),
            secret: Secret(parse_digits(secret)?),
        })
    }
}

/// Formats a credential. Nothing else reveals a secret.
#[must_use]
pub fn reveal(id: TokenId, secret: &Secret) -> String {
    let mut text = format!("{PREFIX}{}_", id.0.simple());
    text.extend(secret.0.iter().map(|byte| format!("{byte:02x}")));
    text
}

fn parse_digits(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let mut bytes = [0; SECRET_BYTES];
    let mut pairs = text.as_bytes().chunks_exact(2);
    if pairs.len() != SECRET_BYTES || !pairs.remainder().is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(&mut pairs) {
        let [high, low] = pair else { return None };
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential() -> Credential {
        Credential {
            id: TokenId::generate(),
            secret: Secret::generate().unwrap(),
        }
    }

    fn revealed(credential: &Credential) -> String {
        reveal(credential.id, &credential.secret)
    }

    #[test]
    fn a_formatted_credential_parses() {
        let credential = credential();
        let text = revealed(&credential);
        assert_eq!(text.len(), 3 + 32 + 1 + 64);
        let read = Credential::parse(&text).unwrap();
        assert_eq!(read.id, credential.id);
        assert!(credential.secret.digest().is_of(&read.secret));
    }

    #[test]
    fn an_incomplete_credential_does_not_parse() {
        let text = revealed(&credential());
        for broken in [
            "".to_owned(),
            "bb_".to_owned(),
            "bb__".to_owned(),
            text.replace("bb_", "bc_"),
            text[..text.len() - 1].to_owned(),
            text[..text.len() - 2].to_owned(),
            format!("{text}0"),
            format!("{text}00"),
            format!("{}zz", &text[..text.len() - 2]),
            format!("{}é", &text[..text.len() - 2]),
            format!(" {text}"),
        ] {
            assert!(Credential::parse(&broken).is_none(), "{broken:?}");
        }
    }

    #[test]
    fn a_different_secret_has_a_different_digest() {
        let (one, other) = (credential(), credential());
        assert!(!one.secret.digest().is_of(&other.secret));
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let credential = credential();
        let secret = revealed(&credential).split('_').nth(2).unwrap().to_owned();
        assert!(!format!("{credential:?}").contains(&secret));
    }
}
