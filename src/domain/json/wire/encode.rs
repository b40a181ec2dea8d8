//! Encodes a `Struct` from anything that serde_json reads: values, or JSON text without
//! building its values first.

use std::fmt;

use prost::{
    bytes::Bytes,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use serde_core::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{
    BOOL_VALUE, ENTRIES, ENTRY_KEY, ENTRY_VALUE, LIST_VALUE, NULL_VALUE, NUMBER_VALUE,
    STRING_VALUE, STRUCT_VALUE,
};

/// Initial capacity of the buffer, in bytes: the size of a usual document.
const CAPACITY: usize = 256;

/// Encodes values as a `Struct`.
pub fn encode(fields: &Map<String, Value>) -> Bytes {
    let mut target = Target::default();
    // Values always deserialize.
    let _ = fields.deserialize_map(Entries(&mut target));
    target.finish()
}

/// Encodes the JSON text of an object as a `Struct`.
///
/// # Errors
/// If the text is not a JSON object.
pub fn encode_text(text: &[u8]) -> serde_json::Result<Bytes> {
    if text == b"{}" {
        return Ok(Bytes::new());
    }
    let mut target = Target {
        bytes: Vec::with_capacity(CAPACITY),
        lengths: Vec::with_capacity(CAPACITY / 8),
        inserted: 0,
    };
    let mut source = serde_json::Deserializer::from_slice(text);
    source.deserialize_map(Entries(&mut target))?;
    source.end()?;
    Ok(target.finish())
}

/// The output. The length of a nested field precedes its content but is known only after
/// it. Such lengths are collected apart, and [`Target::finish`] inserts them.
#[derive(Default)]
pub(super) struct Target {
    /// The output without the lengths of nested fields.
    bytes: Vec<u8>,
    /// The lengths of nested fields, in the order of the fields.
    lengths: Vec<Length>,
    /// The encoded size of the lengths that are known so far.
    inserted: usize,
}

/// A length to insert before the byte at `offset`.
struct Length {
    offset: usize,
    length: usize,
}

/// A nested field that is open.
pub(super) struct Field {
    /// The index of its length in [`Target::lengths`].
    index: usize,
    /// [`Target::inserted`] when the field was opened.
    inserted: usize,
}

impl Target {
    pub(super) fn open(&mut self, tag: u32) -> Field {
        encode_key(tag, WireType::LengthDelimited, &mut self.bytes);
        self.lengths.push(Length {
            offset: self.bytes.len(),
            length: 0,
        });
        Field {
            index: self.lengths.len() - 1,
            inserted: self.inserted,
        }
    }

    pub(super) fn close(&mut self, field: Field) {
        let Some(slot) = self.lengths.get_mut(field.index) else {
            return;
        };
        slot.length = self.bytes.len() - slot.offset + self.inserted - field.inserted;
        self.inserted += encoded_len_varint(slot.length as u64);
    }

    pub(super) fn null(&mut self) {
        self.varint(NULL_VALUE, 0);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.varint(BOOL_VALUE, value.into());
    }

    fn varint(&mut self, tag: u32, value: u64) {
        encode_key(tag, WireType::Varint, &mut self.bytes);
        encode_varint(value, &mut self.bytes);
    }

    pub(super) fn number(&mut self, number: f64) {
        encode_key(NUMBER_VALUE, WireType::SixtyFourBit, &mut self.bytes);
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn text(&mut self, tag: u32, text: &str) {
        encode_key(tag, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(text.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(super) fn finish(self) -> Bytes {
        let mut whole = Vec::with_capacity(self.bytes.len() + self.inserted);
        let mut rest = self.bytes.as_slice();
        let mut written = 0;
        for Length { offset, length } in self.lengths {
            let (before, after) = rest.split_at(offset - written);
            whole.extend_from_slice(before);
            encode_varint(length as u64, &mut whole);
            rest = after;
            written = offset;
        }
        whole.extend_from_slice(rest);
        whole.into()
    }
}

/// Writes the entries of an object.
struct Entries<'a>(&'a mut Target);

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Entries(target) = self;
        while let Some(entry) = map.next_key_seed(Key(target))? {
            map.next_value_seed(AnyValue(ENTRY_VALUE, target))?;
            target.close(entry);
        }
        Ok(())
    }
}

/// Opens an entry, and writes its key.
struct Key<'a>(&'a mut Target);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Field, D::Error> {
        source.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Field, E> {
        let entry = self.0.open(ENTRIES);
        self.0.text(ENTRY_KEY, key);
        Ok(entry)
    }
}

/// Writes a field with this tag and a `Value` as its content.
struct AnyValue<'a>(u32, &'a mut Target);

impl<'de> DeserializeSeed<'de> for AnyValue<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        let AnyValue(tag, target) = self;
        let value = target.open(tag);
        source.deserialize_any(Kind(target))?;
        target.close(value);
        Ok(())
    }
}

/// Writes the content of a `Value`.
struct Kind<'a>(&'a mut Target);

impl<'de> Visitor<'de> for Kind<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.null();
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.bool(value);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "protobuf has doubles only")]
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.number(value as f64);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "protobuf has doubles only")]
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.number(value as f64);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.number(value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.text(STRING_VALUE, value);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let fields = self.0.open(STRUCT_VALUE);
        Entries(self.0).visit_map(map)?;
        self.0.close(fields);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let values = self.0.open(LIST_VALUE);
        while list.next_element_seed(AnyValue(ENTRIES, self.0))?.is_some() {}
        self.0.close(values);
        Ok(())
    }
}
