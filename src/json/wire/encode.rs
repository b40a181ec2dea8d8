//! Into bytes, whatever serde_json reads: the text of a document, without making
//! values of it first, or values.

use std::fmt;

use prost::{
    bytes::Bytes,
    encoding::{WireType, encode_key, encode_varint},
};
use serde_core::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{
    BOOL_VALUE, ENTRIES, ENTRY_KEY, ENTRY_VALUE, LIST_VALUE, NULL_VALUE, NUMBER_VALUE,
    STRING_VALUE, STRUCT_VALUE,
};

/// Values as a `Struct`.
pub fn encode(fields: &Map<String, Value>) -> Bytes {
    let mut out = Vec::new();
    // Nothing can be wrong with values.
    let _ = fields.deserialize_map(Entries(&mut out));
    out.into()
}

/// The text of a JSON object as a `Struct`.
///
/// # Errors
/// It is no JSON object.
pub fn encode_text(text: &[u8]) -> serde_json::Result<Bytes> {
    if text == b"{}" {
        return Ok(Bytes::new());
    }
    // Small documents grow, by the lengths and the types that are written out.
    let mut out = Vec::with_capacity(2 * text.len());
    let mut source = serde_json::Deserializer::from_slice(text);
    source.deserialize_map(Entries(&mut out))?;
    source.end()?;
    Ok(out.into())
}

/// Writes the entries of an object.
struct Entries<'a>(&'a mut Vec<u8>);

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Entries(out) = self;
        loop {
            let before = out.len();
            let entry = open(ENTRIES, out);
            if map.next_key_seed(Key(out))?.is_none() {
                out.truncate(before);
                return Ok(());
            }
            let value = open(ENTRY_VALUE, out);
            map.next_value_seed(AnyValue(out))?;
            close(value, out);
            close(entry, out);
        }
    }
}

/// Writes the key of an entry.
struct Key<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<(), E> {
        text(ENTRY_KEY, key, self.0);
        Ok(())
    }
}

/// Writes a `Value`.
struct AnyValue<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for AnyValue<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        varint(NULL_VALUE, 0, self.0);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        varint(BOOL_VALUE, u64::from(value), self.0);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "protobuf has doubles only")]
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        number(value as f64, self.0);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "protobuf has doubles only")]
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        number(value as f64, self.0);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        number(value, self.0);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        text(STRING_VALUE, value, self.0);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let fields = open(STRUCT_VALUE, self.0);
        Entries(self.0).visit_map(map)?;
        close(fields, self.0);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let AnyValue(out) = self;
        let values = open(LIST_VALUE, out);
        loop {
            let before = out.len();
            let value = open(ENTRIES, out);
            if list.next_element_seed(AnyValue(out))?.is_none() {
                out.truncate(before);
                break;
            }
            close(value, out);
        }
        close(values, out);
        Ok(())
    }
}

fn varint(tag: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(tag, WireType::Varint, out);
    encode_varint(value, out);
}

fn number(number: f64, out: &mut Vec<u8>) {
    encode_key(NUMBER_VALUE, WireType::SixtyFourBit, out);
    out.extend_from_slice(&number.to_le_bytes());
}

fn text(tag: u32, text: &str, out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Begins a field whose length is not known yet; answers where its content begins.
fn open(tag: u32, out: &mut Vec<u8>) -> usize {
    encode_key(tag, WireType::LengthDelimited, out);
    out.push(0);
    out.len()
}

/// Ends a field. Most are short enough for the one byte that was left for the
/// length; the content of the others moves.
fn close(start: usize, out: &mut Vec<u8>) {
    let mut length = Vec::new();
    let content = out.len() - start;
    if content < 0x80 {
        if let (Some(byte), Ok(content)) = (out.get_mut(start - 1), u8::try_from(content)) {
            *byte = content;
        }
        return;
    }
    encode_varint(content as u64, &mut length);
    out.splice(start - 1..start, length);
}
