//! Converts an encoded `Struct` back: to JSON text by serde, and to serde_json's values.

use std::str;

use prost::{
    DecodeError,
    bytes::Buf,
    encoding::{WireType, decode_key, decode_varint},
};
use serde_core::ser::{Error, Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value};

use super::{
    BOOL_VALUE, ENTRIES, ENTRY_KEY, LIST_VALUE, NULL_VALUE, NUMBER_VALUE, STRING_VALUE,
    STRUCT_VALUE, number, take, truncated,
};

/// A `Struct` that [`super::encode`] returned, which serializes as a JSON object.
pub struct Document<'a>(pub &'a [u8]);

/// Decodes a `Struct` that [`super::encode`] returned; `None` if the bytes are damaged.
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
        while !bytes.is_empty() {
            let (key, value) = entry(&mut bytes).map_err(S::Error::custom)?;
            map.serialize_entry(key, &AnyValue(value))?;
        }
        map.end()
    }
}

/// An encoded `Value`.
struct AnyValue<'a>(&'a [u8]);

impl Serialize for AnyValue<'_> {
    fn serialize<S: Serializer>(&self, target: S) -> Result<S::Ok, S::Error> {
        let AnyValue(mut bytes) = *self;
        let bytes = &mut bytes;
        let (tag, _) = decode_key(bytes).map_err(S::Error::custom)?;
        match tag {
            NULL_VALUE => target.serialize_unit(),
            BOOL_VALUE => {
                target.serialize_bool(decode_varint(bytes).map_err(S::Error::custom)? != 0)
            }
            NUMBER_VALUE => {
                let value = bytes.try_get_f64_le().map_err(S::Error::custom)?;
                number(value).serialize(target)
            }
            STRING_VALUE => target.serialize_str(text(bytes).map_err(S::Error::custom)?),
            STRUCT_VALUE => Document(take(bytes).map_err(S::Error::custom)?).serialize(target),
            LIST_VALUE => {
                let mut values = take(bytes).map_err(S::Error::custom)?;
                let mut list = target.serialize_seq(None)?;
                while !values.is_empty() {
                    let value = field(ENTRIES, &mut values).map_err(S::Error::custom)?;
                    list.serialize_element(&AnyValue(value))?;
                }
                list.end()
            }
            _ => Err(S::Error::custom(truncated())),
        }
    }
}

/// Takes the next entry of a `Struct`: its key, and its encoded value.
fn entry<'a>(bytes: &mut &'a [u8]) -> Result<(&'a str, &'a [u8]), DecodeError> {
    let mut entry = field(ENTRIES, bytes)?;
    let entry = &mut entry;
    let key = str::from_utf8(field(ENTRY_KEY, entry)?).map_err(|_| truncated())?;
    Ok((key, field(super::ENTRY_VALUE, entry)?))
}

fn text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    str::from_utf8(take(bytes)?).map_err(|_| truncated())
}

fn field<'a>(tag: u32, bytes: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    match decode_key(bytes)? {
        (found, WireType::LengthDelimited) if found == tag => take(bytes),
        _ => Err(truncated()),
    }
}
