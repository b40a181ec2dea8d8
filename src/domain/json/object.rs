//! Documents in the form in which the domain holds them and the database stores them.

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    serialize::{self, IsNull, Output, ToSql},
    sql_types::Jsonb,
};
use prost::bytes::Bytes;
use serde_json::{Map, Value};

use super::{JsonError, MAX_BYTES, MAX_WIRE_BYTES, Size, wire};

/// Maximum ratio of a document's JSON text to its protobuf form: a control character is one
/// byte as protobuf, and an escape of six bytes as text.
const TEXT_FACTOR: usize = 6;

/// A JSON object that the database can store and every client can read.
///
/// It is held as protobuf, the form in which most documents leave the service: the text
/// that the database returns is converted in one pass, and clones share the bytes. The keys
/// of a document from the database are in the database's order, not sorted.
///
/// Its numbers are doubles. Larger integers and longer fractions, which only SQL can store,
/// are rounded in responses and by a merge.
#[derive(Debug, Clone, Default, AsExpression, FromSqlRow)]
#[diesel(sql_type = Jsonb)]
pub struct JsonObject(Bytes);

impl JsonObject {
    /// Applies a JSON Merge Patch (RFC 7396): objects are merged, null removes a key, and
    /// any other value replaces.
    ///
    /// # Errors
    /// [`JsonError::TooLarge`] or [`JsonError::TooLargeOnWire`] if the result is too large,
    /// and [`JsonError::Unreadable`] if the stored bytes do not decode.
    pub fn merge(&mut self, patch: &JsonObject) -> Result<(), JsonError> {
        let (Some(mut fields), Some(patch)) = (self.fields(), patch.fields()) else {
            return Err(JsonError::Unreadable);
        };
        merge_patch(&mut fields, &patch);
        *self = JsonObject(wire::encode(&fields));
        self.check_size()
    }

    /// Returns whether the object has no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the size as protobuf, in bytes. For a document of small numbers it is up to
    /// six times the size of the JSON text.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.0.len()
    }

    /// Returns the size of the JSON text, in bytes.
    #[must_use]
    pub fn text_len(&self) -> usize {
        let mut counter = ByteCounter(0);
        // Neither the counter nor bytes that this module encoded can fail.
        let _ = serde_json::to_writer(&mut counter, &wire::Document(&self.0));
        counter.0
    }

    /// Returns the number of values in its arrays, at any depth.
    #[must_use]
    pub fn array_values(&self) -> usize {
        let fields = self.fields().unwrap_or_default();
        fields.values().map(array_values).sum()
    }

    /// Makes the object of bytes that [`wire::encode`] returned.
    pub(super) fn encoded_as(bytes: Bytes) -> Self {
        JsonObject(bytes)
    }

    /// Returns the object as protobuf.
    pub(super) fn encoded(&self) -> &Bytes {
        &self.0
    }

    /// Returns the fields; `None` if the bytes do not decode.
    pub(super) fn fields(&self) -> Option<Map<String, Value>> {
        wire::decode(&self.0)
    }

    /// Checks the limits of the size as text and as protobuf.
    pub(super) fn check_size(&self) -> Result<(), JsonError> {
        if self.wire_len() * TEXT_FACTOR > MAX_BYTES && self.text_len() > MAX_BYTES {
            return Err(JsonError::TooLarge {
                max: MAX_BYTES,
                size: Size::Exactly(self.text_len()),
            });
        }
        if self.wire_len() > MAX_WIRE_BYTES {
            return Err(JsonError::TooLargeOnWire {
                max: MAX_WIRE_BYTES,
                size: self.wire_len(),
            });
        }
        Ok(())
    }
}

impl PartialEq for JsonObject {
    fn eq(&self, other: &Self) -> bool {
        // Equal fields can be in different orders.
        self.0 == other.0 || (self.0.len() == other.0.len() && self.fields() == other.fields())
    }
}

fn array_values(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.len() + values.iter().map(array_values).sum::<usize>(),
        Value::Object(fields) => fields.values().map(array_values).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn merge_patch(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(patch) => {
                let slot = target.entry(key.as_str()).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(target) = slot {
                    merge_patch(target, patch);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

/// A writer that counts bytes and drops them.
struct ByteCounter(usize);

impl std::io::Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The version byte, with which the binary form of JSONB starts.
const JSONB_VERSION: u8 = 1;

impl ToSql<Jsonb, Pg> for JsonObject {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        std::io::Write::write_all(out, &[JSONB_VERSION])?;
        serde_json::to_writer(out, &wire::Document(&self.0))?;
        Ok(IsNull::No)
    }
}

impl FromSql<Jsonb, Pg> for JsonObject {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match value.as_bytes().split_first() {
            Some((&JSONB_VERSION, text)) => Ok(JsonObject(wire::encode_text(text)?)),
            _ => Err("the value has an unknown version of JSONB".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> JsonObject {
        match value {
            Value::Object(fields) => JsonObject(wire::encode(&fields)),
            other => panic!("{other} is not an object"),
        }
    }

    #[test]
    fn a_merge_patch_merges_objects_removes_nulls_and_replaces_values() {
        let mut target = object(json!({"a": {"b": 1, "c": 2}, "d": [1, 2], "e": 5}));
        let patch = object(json!({"a": {"b": 9, "c": null}, "d": {"x": 1}, "e": null, "f": "new"}));
        target.merge(&patch).unwrap();
        assert_eq!(
            target,
            object(json!({"a": {"b": 9}, "d": {"x": 1}, "f": "new"}))
        );
    }

    /// PostgreSQL sorts keys by their length first.
    #[test]
    fn objects_with_keys_in_different_orders_are_equal() {
        let stored =
            JsonObject(wire::encode_text(br#"{"b": 1, "aa": {"d": 2, "cc": 3}}"#).unwrap());
        let sorted = object(json!({"aa": {"cc": 3, "d": 2}, "b": 1}));
        assert_ne!(stored.0, sorted.0);
        assert_eq!(stored, sorted);
        assert_ne!(stored, object(json!({"aa": {"cc": 3, "d": 2}, "b": 2})));
    }

    #[test]
    fn a_merge_that_exceeds_the_size_limit_is_rejected() {
        let half = "x".repeat(MAX_BYTES / 2);
        let mut target = object(json!({"a": half}));
        let patch = object(json!({"b": half}));
        let error = target.merge(&patch).unwrap_err();
        // {"a":"…","b":"…"}
        let size = MAX_BYTES + 15;
        let expected = format!("must be at most {MAX_BYTES} bytes of JSON text, got {size}");
        assert_eq!(error.to_string(), expected);
    }
}
