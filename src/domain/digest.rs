//! The digest of a request, which tells a retry from another request with the same id.

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    serialize::{self, Output, ToSql},
    sql_types::Bytea,
};
use prost::Message;
use sha2::{Digest as _, Sha256};

/// Length of a digest: half of a SHA-256. It keeps rows short, and a collision between
/// two requests is still infeasible to find.
const BYTES: usize = 16;

/// The digest of a request's content.
///
/// It covers the message as prost encodes it: fields in the order of their numbers,
/// unset fields left out, and keys of JSON objects sorted (as in all documents that come
/// from a caller). Every retry therefore has the same digest, in every release that only
/// adds fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Bytea)]
pub struct RequestDigest([u8; BYTES]);

impl RequestDigest {
    /// Computes the digest of a message. The caller first clears the fields that are not
    /// content, such as the id itself.
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

    /// Computes the digest of a query: its RPC and its filters.
    #[must_use]
    pub fn of_query(rpc: &str, filters: &impl Message) -> Self {
        let mut bytes = rpc.as_bytes().to_vec();
        bytes.push(0);
        bytes.extend(filters.encode_to_vec());
        Self::of_bytes(&bytes)
    }

    /// Returns the bytes of the digest.
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

    /// Digests are stored. If they changed, every retry across an upgrade would be rejected
    /// as an id conflict.
    #[test]
    fn the_digest_of_a_request_never_changes() {
        let entry = |text: &str| {
            let fields: serde_json::Map<_, _> = serde_json::from_str(text).unwrap();
            Struct::from(fields).encode_to_vec()
        };
        // Some clients write the entries of a map in another order than that of the keys.
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
