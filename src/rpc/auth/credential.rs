//! Credentials: `bb_<id>_<secret>`, with the id of a token as 32 and its secret as 64
//! hexadecimal digits. A double click selects all of it, and a scanner for leaked
//! secrets knows it by `bb_[0-9a-f]{32}_[0-9a-f]{64}`.

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

/// What every credential begins with.
const PREFIX: &str = "bb_";
/// The length of a secret, in bytes: 256 bits.
const SECRET_BYTES: usize = 32;
/// The length of an id, as hexadecimal digits.
const ID_DIGITS: usize = 32;

/// What only the holder of a token knows.
pub struct Secret([u8; SECRET_BYTES]);

/// Never the secret itself: it would end up in a log.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Makes a new one.
    ///
    /// # Errors
    /// If the operating system has no random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Secret(bytes))
    }

    /// Returns a secret of zeros, for a request that is going to be rejected.
    pub(crate) fn placeholder() -> Self {
        Secret([0; SECRET_BYTES])
    }

    /// What is kept of it.
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
    /// Whether it is that of a secret. It takes as long whatever the secret is.
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

/// What a caller shows: a token's name and its secret.
#[derive(Debug)]
pub struct Credential {
    /// The token.
    pub id: TokenId,
    /// What only its holder knows.
    pub secret: Secret,
}

impl Credential {
    /// Reads a credential; `None` if it is none.
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

/// Writes a credential: the only moment at which a secret is shown.
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

    fn shown(credential: &Credential) -> String {
        reveal(credential.id, &credential.secret)
    }

    #[test]
    fn what_is_written_is_read() {
        let credential = credential();
        let text = shown(&credential);
        assert_eq!(text.len(), 3 + 32 + 1 + 64);
        let read = Credential::parse(&text).unwrap();
        assert_eq!(read.id, credential.id);
        assert!(credential.secret.digest().is_of(&read.secret));
    }

    #[test]
    fn only_whole_credentials_are_read() {
        let text = shown(&credential());
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
    fn another_secret_is_another() {
        let (one, other) = (credential(), credential());
        assert!(!one.secret.digest().is_of(&other.secret));
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        let credential = credential();
        let secret = shown(&credential).split('_').nth(2).unwrap().to_owned();
        assert!(!format!("{credential:?}").contains(&secret));
    }
}
