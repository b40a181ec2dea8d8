//! Tells a retry from another request under the same id.

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    serialize::{self, Output, ToSql},
    sql_types::Bytea,
};
use prost::Message;
use sha2::{Digest as _, Sha256};

/// Half of a SHA-256: short in every row, and still nobody finds two requests
/// with the same one.
const BYTES: usize = 16;

/// The digest of a request's content.
///
/// It is taken of the message as prost encodes it: fields in the order of their
/// numbers, unset ones left out, keys of JSON objects sorted, as they are in
/// messages that came from a caller. So it is the same for every retry, in every
/// release that only adds fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Bytea)]
pub struct RequestDigest([u8; BYTES]);

impl RequestDigest {
    /// Takes the digest of a message, from which the caller has removed what
    /// does not belong to the content, such as the id itself.
    #[must_use]
    pub fn of(content: &impl Message) -> Self {
        Self::of_bytes(&content.encode_to_vec())
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        let hash = Sha256::digest(bytes);
        let mut digest = [0; BYTES];
        digest
            .iter_mut()
            .zip(hash)
            .for_each(|(to, from)| *to = from);
        Self(digest)
    }

    /// Takes the digest of the filters of a query, which is no other query's.
    #[must_use]
    pub fn of_query(rpc: &str, filters: &impl Message) -> Self {
        let mut bytes = rpc.as_bytes().to_vec();
        bytes.push(0);
        bytes.extend(filters.encode_to_vec());
        Self::of_bytes(&bytes)
    }

    /// The digest as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl ToSql<Bytea, Pg> for RequestDigest {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Bytea, Pg>::to_sql(self.0.as_slice(), out)
    }
}

impl FromSql<Bytea, Pg> for RequestDigest {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(value.as_bytes().try_into()?))
    }
}

#[cfg(test)]
mod tests {
    use crate::{domain::json::Struct, proto::v1::StartWorkflowRequest};

    use super::*;

    /// Every digest that is stored would be another one, and every retry across
    /// an upgrade refused, if this changed.
    #[test]
    fn the_digest_of_a_request_never_changes() {
        let entry = |text: &str| {
            let fields: serde_json::Map<_, _> = serde_json::from_str(text).unwrap();
            Struct::from(fields).encode_to_vec()
        };
        // Not in the order of the keys, as some clients write them.
        let mut metadata = entry(r#"{"b": {"z": [1, "x", null, true], "": -0.0}}"#);
        metadata.extend(entry(r#"{"aa": 1e300}"#));
        let request = StartWorkflowRequest {
            namespace: "n".into(),
            workflow_type: "t".into(),
            metadata: Some(Struct::decode(metadata.as_slice()).unwrap()),
            ..StartWorkflowRequest::default()
        };
        let digest = RequestDigest::of(&request).as_bytes().to_vec();
        assert_eq!(
            digest,
            [
                213, 44, 165, 111, 150, 98, 128, 219, 10, 47, 88, 34, 217, 138, 131, 169
            ]
        );
    }
}
