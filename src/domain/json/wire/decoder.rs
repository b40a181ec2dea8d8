//! Decodes a `Struct` from the wire, and notes the first fault of the document.

use prost::{
    DecodeError,
    bytes::Buf,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use serde_json::{Map, Value};

use super::{
    super::{JsonError, MAX_BYTES, MAX_DEPTH},
    BOOL_VALUE, ENTRIES, ENTRY_KEY, ENTRY_VALUE, LIST_VALUE, NULL_VALUE, NUMBER_VALUE,
    STRING_VALUE, STRUCT_VALUE, number, take, truncated,
};

/// Decodes values until the first fault, and notes it. It stops there, so that an invalid
/// document takes no more stack, memory and time than a valid one.
pub struct Decoder {
    /// The first fault of the document.
    pub error: Option<JsonError>,
    /// Lower bound of the size of the values so far, in bytes of JSON text.
    pub text_bytes: usize,
}

/// Minimum size of a value as JSON text, in bytes: a character and a separator.
const MIN_VALUE_BYTES: usize = 2;

impl Decoder {
    fn note(&mut self, error: JsonError) {
        self.error.get_or_insert(error);
    }

    fn count_text(&mut self, bytes: usize) {
        self.text_bytes += bytes;
        // The last value has no separator.
        if self.text_bytes > MAX_BYTES + MIN_VALUE_BYTES {
            self.note(JsonError::TooLarge);
        }
    }

    /// Decodes an entry of an object at level `depth` into `fields`.
    ///
    /// # Errors
    /// If the bytes are not a valid entry.
    pub fn entry(
        &mut self,
        fields: &mut Map<String, Value>,
        mut bytes: &[u8],
        depth: usize,
    ) -> Result<(), DecodeError> {
        let mut key = String::new();
        let mut value = Value::Null;
        while bytes.has_remaining() && self.error.is_none() {
            match decode_key(&mut bytes)? {
                (ENTRY_KEY, WireType::LengthDelimited) => key = self.text(&mut bytes)?,
                (ENTRY_VALUE, WireType::LengthDelimited) => {
                    value = self.value(take(&mut bytes)?, depth)?;
                }
                (tag, wire_type) => skip(wire_type, tag, &mut bytes)?,
            }
        }
        fields.insert(key, value);
        Ok(())
    }

    fn value(&mut self, mut bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
        let mut value = Value::Null;
        self.count_text(MIN_VALUE_BYTES);
        while bytes.has_remaining() && self.error.is_none() {
            value = match decode_key(&mut bytes)? {
                (NULL_VALUE, WireType::Varint) => decode_varint(&mut bytes).map(|_| Value::Null)?,
                (BOOL_VALUE, WireType::Varint) => Value::Bool(decode_varint(&mut bytes)? != 0),
                (NUMBER_VALUE, WireType::SixtyFourBit) => self.number(&mut bytes)?,
                (STRING_VALUE, WireType::LengthDelimited) => Value::String(self.text(&mut bytes)?),
                (STRUCT_VALUE | LIST_VALUE, WireType::LengthDelimited) if depth >= MAX_DEPTH => {
                    self.note(JsonError::TooDeep);
                    take(&mut bytes).map(|_| Value::Null)?
                }
                (STRUCT_VALUE, WireType::LengthDelimited) => {
                    self.object(take(&mut bytes)?, depth + 1)?
                }
                (LIST_VALUE, WireType::LengthDelimited) => {
                    self.array(take(&mut bytes)?, depth + 1)?
                }
                (tag, wire_type) => {
                    skip(wire_type, tag, &mut bytes)?;
                    value
                }
            };
        }
        Ok(value)
    }

    fn object(&mut self, mut bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
        let mut fields = Map::new();
        while bytes.has_remaining() && self.error.is_none() {
            match decode_key(&mut bytes)? {
                (ENTRIES, WireType::LengthDelimited) => {
                    self.entry(&mut fields, take(&mut bytes)?, depth)?;
                }
                (tag, wire_type) => skip(wire_type, tag, &mut bytes)?,
            }
        }
        Ok(Value::Object(fields))
    }

    fn array(&mut self, mut bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
        let mut values = Vec::new();
        while bytes.has_remaining() && self.error.is_none() {
            match decode_key(&mut bytes)? {
                (ENTRIES, WireType::LengthDelimited) => {
                    values.push(self.value(take(&mut bytes)?, depth)?);
                }
                (tag, wire_type) => skip(wire_type, tag, &mut bytes)?,
            }
        }
        Ok(Value::Array(values))
    }

    fn number(&mut self, bytes: &mut &[u8]) -> Result<Value, DecodeError> {
        let value = bytes.try_get_f64_le().map_err(|_| truncated())?;
        if !value.is_finite() {
            self.note(JsonError::NotFinite);
        }
        Ok(number(value))
    }

    fn text(&mut self, bytes: &mut &[u8]) -> Result<String, DecodeError> {
        let mut text = String::new();
        prost::encoding::string::merge(
            WireType::LengthDelimited,
            &mut text,
            bytes,
            DecodeContext::default(),
        )?;
        self.count_text(text.len());
        if text.contains('\0') {
            self.note(JsonError::Nul);
        }
        Ok(text)
    }
}

fn skip(wire_type: WireType, tag: u32, bytes: &mut &[u8]) -> Result<(), DecodeError> {
    skip_field(wire_type, tag, bytes, DecodeContext::default())
}
