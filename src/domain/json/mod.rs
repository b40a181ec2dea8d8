//! JSON documents: `google.protobuf.Struct` on the wire, JSONB in the database.
//!
//! [`Struct`] is the wire's type. It is ours rather than prost's because prost
//! refuses a message that nests deeper than 100, which is about 33 levels of
//! JSON, with nothing but a decoding error; ours keeps what is wrong with a
//! document, so that the answer can name the field.

use std::{fmt, sync::OnceLock};

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    serialize::{self, IsNull, Output, ToSql},
    sql_types::Jsonb,
};
use prost::bytes::Bytes;
use serde_json::{Map, Value};

mod wire;

/// The deepest nesting of a document; the document itself is level 1.
/// Deep enough for anything that people write, shallow enough for recursion.
pub const MAX_DEPTH: usize = 64;

/// The longest document, in bytes of JSON text. PostgreSQL would take 255 MiB,
/// but every reader of the row would have to take it too.
pub const MAX_BYTES: usize = 1024 * 1024;

/// The longest document as protobuf, in bytes: a small number takes eleven bytes
/// there and one as text. A gRPC client takes answers of 4 MiB by default, and a
/// document should not be what it can't read.
pub const MAX_WIRE_BYTES: usize = 3 * 1024 * 1024;

/// As text a document takes at most so many times its bytes as protobuf: a
/// control character is one byte there, and an escape of six here.
const TEXT_FACTOR: usize = 6;

/// Why a document is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonError {
    /// It nests deeper than [`MAX_DEPTH`].
    TooDeep,
    /// Its JSON text is longer than [`MAX_BYTES`].
    TooLarge,
    /// It is longer as protobuf than [`MAX_WIRE_BYTES`].
    TooLargeOnWire,
    /// It has a number that JSON cannot say: NaN or an infinity.
    NotFinite,
    /// It has a NUL character, in a string or in a key; JSONB cannot store it.
    Nul,
    /// What is stored can't be read, so it can't be merged with.
    Unreadable,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::TooDeep => write!(f, "must not nest deeper than {MAX_DEPTH} levels"),
            JsonError::TooLarge => {
                write!(f, "must not be longer than {MAX_BYTES} bytes of JSON text")
            }
            JsonError::TooLargeOnWire => {
                write!(
                    f,
                    "must not be longer than {MAX_WIRE_BYTES} bytes as protobuf"
                )
            }
            JsonError::NotFinite => f.write_str("must not contain NaN or an infinite number"),
            JsonError::Nul => f.write_str("must not contain a NUL character"),
            JsonError::Unreadable => f.write_str("can't be merged with what is stored"),
        }
    }
}

/// `google.protobuf.Struct` as it came, or as it is about to go, over the wire.
#[derive(Debug, Clone, Default)]
pub struct Struct(Form);

#[derive(Debug, Clone)]
enum Form {
    /// What came, or what a client sends.
    Values(Values),
    /// What goes.
    Document(JsonObject),
}

/// The fields of a document, and what is wrong with it.
#[derive(Debug, Clone, Default)]
struct Values {
    fields: Map<String, Value>,
    fault: Option<JsonError>,
    /// How many bytes of JSON text the fields take at least, while they are decoded.
    spent: usize,
    /// The fields as protobuf, once somebody has asked: a request's digest does,
    /// and the document keeps what it was made of.
    encoded: OnceLock<Bytes>,
}

impl Values {
    fn encoded(&self) -> &Bytes {
        self.encoded.get_or_init(|| wire::encode(&self.fields))
    }
}

impl From<Map<String, Value>> for Values {
    fn from(fields: Map<String, Value>) -> Self {
        Values {
            fields,
            ..Values::default()
        }
    }
}

impl Struct {
    /// Whether there is nothing in it, not even a fault.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Form::Values(values) => values.fields.is_empty() && values.fault.is_none(),
            Form::Document(document) => document.is_empty(),
        }
    }

    /// How deep it nests; the document itself is level 1.
    #[must_use]
    pub fn depth(&self) -> usize {
        match &self.0 {
            Form::Values(values) => 1 + deepest(values.fields.values()),
            Form::Document(document) => 1 + deepest(document.fields().unwrap_or_default().values()),
        }
    }

    /// The document as protobuf; its keys are sorted, if it came from a caller.
    fn encoded(&self) -> &Bytes {
        match &self.0 {
            Form::Values(values) => values.encoded(),
            Form::Document(document) => &document.0,
        }
    }
}

impl Default for Form {
    fn default() -> Self {
        Form::Values(Values::default())
    }
}

impl PartialEq for Struct {
    fn eq(&self, other: &Self) -> bool {
        let parts = |it: &Self| match &it.0 {
            Form::Values(values) => (Some(values.fields.clone()), values.fault),
            Form::Document(document) => (document.fields(), None),
        };
        parts(self) == parts(other)
    }
}

/// A JSON object that the database can store and every client can read.
///
/// It is kept as protobuf, the form in which most of them leave: what the
/// database answers is turned from text to protobuf in one go, and clones share
/// the bytes. The keys of what came from the database are in its order, not sorted.
///
/// So its numbers are doubles. Larger integers and longer fractions, which only
/// SQL can put into the database, are answered rounded, and a merge stores them so.
#[derive(Debug, Clone, Default, AsExpression, FromSqlRow)]
#[diesel(sql_type = Jsonb)]
pub struct JsonObject(Bytes);

impl JsonObject {
    /// Applies a JSON Merge Patch (RFC 7396): objects are merged, null removes
    /// a key, anything else replaces.
    ///
    /// # Errors
    /// [`JsonError::TooLarge`] or [`JsonError::TooLargeOnWire`] if the result would be.
    pub fn merge(&mut self, patch: &JsonObject) -> Result<(), JsonError> {
        let (Some(mut fields), Some(patch)) = (self.fields(), patch.fields()) else {
            return Err(JsonError::Unreadable);
        };
        merge_patch(&mut fields, &patch);
        *self = JsonObject(wire::encode(&fields));
        self.check_size()
    }

    /// Whether the object has no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The length of the document as protobuf, in bytes: up to six times that of
    /// its JSON text, where it is made of small numbers.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.0.len()
    }

    fn fields(&self) -> Option<Map<String, Value>> {
        wire::decode(&self.0)
    }

    /// The length of its JSON text in bytes.
    #[must_use]
    pub fn text_len(&self) -> usize {
        let mut size = Size(0);
        // Counting does not fail, and neither do bytes of our own.
        let _ = serde_json::to_writer(&mut size, &wire::Document(&self.0));
        size.0
    }

    fn check_size(&self) -> Result<(), JsonError> {
        if self.wire_len() * TEXT_FACTOR > MAX_BYTES && self.text_len() > MAX_BYTES {
            return Err(JsonError::TooLarge);
        }
        if self.wire_len() > MAX_WIRE_BYTES {
            return Err(JsonError::TooLargeOnWire);
        }
        Ok(())
    }
}

fn deepest<'a>(values: impl Iterator<Item = &'a Value>) -> usize {
    let depths = values.map(|value| match value {
        Value::Object(fields) => 1 + deepest(fields.values()),
        Value::Array(values) => 1 + deepest(values.iter()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    });
    depths.max().unwrap_or_default()
}

impl PartialEq for JsonObject {
    fn eq(&self, other: &Self) -> bool {
        // The same fields may be in another order.
        self.0 == other.0 || (self.0.len() == other.0.len() && self.fields() == other.fields())
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

/// A writer that only counts.
struct Size(usize);

impl std::io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl TryFrom<Struct> for JsonObject {
    type Error = JsonError;

    fn try_from(document: Struct) -> Result<Self, JsonError> {
        let object = match document.0 {
            Form::Document(object) => object,
            Form::Values(Values {
                fault: Some(fault), ..
            }) => return Err(fault),
            Form::Values(values) => JsonObject(values.encoded().clone()),
        };
        object.check_size()?;
        Ok(object)
    }
}

impl From<JsonObject> for Struct {
    fn from(object: JsonObject) -> Self {
        Struct(Form::Document(object))
    }
}

impl From<Map<String, Value>> for Struct {
    fn from(fields: Map<String, Value>) -> Self {
        Struct(Form::Values(fields.into()))
    }
}

impl From<Struct> for Map<String, Value> {
    fn from(document: Struct) -> Self {
        match document.0 {
            Form::Values(values) => values.fields,
            Form::Document(document) => document.fields().unwrap_or_default(),
        }
    }
}

/// The version byte that opens the binary form of JSONB.
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
            _ => Err("unknown version of JSONB".into()),
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
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn a_merge_patch_merges_removes_and_replaces() {
        let mut target = object(json!({"a": {"b": 1, "c": 2}, "d": [1, 2], "e": 5}));
        let patch = object(json!({"a": {"b": 9, "c": null}, "d": {"x": 1}, "e": null, "f": "new"}));
        target.merge(&patch).unwrap();
        assert_eq!(
            target,
            object(json!({"a": {"b": 9}, "d": {"x": 1}, "f": "new"}))
        );
    }

    /// As PostgreSQL has them: shorter ones first.
    #[test]
    fn the_order_of_keys_does_not_matter() {
        let stored =
            JsonObject(wire::encode_text(br#"{"b": 1, "aa": {"d": 2, "cc": 3}}"#).unwrap());
        let sorted = object(json!({"aa": {"cc": 3, "d": 2}, "b": 1}));
        assert_ne!(stored.0, sorted.0);
        assert_eq!(stored, sorted);
        assert_ne!(stored, object(json!({"aa": {"cc": 3, "d": 2}, "b": 2})));
    }

    #[test]
    fn a_merge_that_grows_past_the_limit_is_refused() {
        let half = "x".repeat(MAX_BYTES / 2);
        let mut target = object(json!({"a": half}));
        let patch = object(json!({"b": half}));
        assert_eq!(target.merge(&patch), Err(JsonError::TooLarge));
    }
}
