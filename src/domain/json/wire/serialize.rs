//! Converts an encoded `Struct` back: to JSON text by serde, and to serde_json's values.

use serde_core::ser::{Error, Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value};

use super::parse::{self, Kind};

/// Largest integer that a double holds exactly. Integers up to it are stored as integers.
const MAX_EXACT: f64 = 9_007_199_254_740_991.0;

/// A `Struct` that [`super::encode`] or [`super::normalize`] returned, which serializes as a JSON
/// object.
pub struct Document<'a>(pub &'a [u8]);

/// Decodes a `Struct` that [`super::encode`] or [`super::normalize`] returned; `None` if the bytes are
/// damaged.
pub fn decode(bytes: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::to_value(Document(bytes)) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, target: S) -> Result<S::Ok, S::Error> {
        let Document(mut bytes) = *self;
        let mut map = target.serialize_map(None)?;
        while let Some(entry) = parse::next(&mut bytes).map_err(S::Error::custom)? {
            let (key, value) = parse::entry(entry).map_err(S::Error::custom)?;
            map.serialize_entry(key, &AnyValue(value))?;
        }
        map.end()
    }
}

/// An encoded `Value`.
struct AnyValue<'a>(&'a [u8]);

impl Serialize for AnyValue<'_> {
    fn serialize<S: Serializer>(&self, target: S) -> Result<S::Ok, S::Error> {
        match parse::kind(self.0).map_err(S::Error::custom)? {
            Kind::Null => target.serialize_unit(),
            Kind::Bool(value) => target.serialize_bool(value),
            Kind::Number(value) => number(value).serialize(target),
            Kind::Text(text) => target.serialize_str(text),
            Kind::Object(entries) => Document(entries).serialize(target),
            Kind::Array(mut values) => {
                let mut list = target.serialize_seq(None)?;
                while let Some(value) = parse::next(&mut values).map_err(S::Error::custom)? {
                    list.serialize_element(&AnyValue(value))?;
                }
                list.end()
            }
        }
    }
}

/// Converts a number to JSON; NaN and infinities become null.
fn number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() <= MAX_EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "checked just above")]
        return Value::from(number as i64);
    }
    Value::from(number)
}
