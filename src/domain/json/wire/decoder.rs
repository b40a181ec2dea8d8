//! Decodes a `Struct` from the wire, and notes the first fault of the document with a pointer
//! to it.

use std::fmt;

use prost::{
    DecodeError,
    bytes::Buf,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use serde_json::{Map, Value};

use super::{
    super::{JsonError, MAX_BYTES, MAX_DEPTH, Pointer, Size},
    BOOL_VALUE, ENTRIES, ENTRY_KEY, ENTRY_VALUE, LIST_VALUE, NULL_VALUE, NUMBER_VALUE,
    STRING_VALUE, STRUCT_VALUE, number, take, truncated,
};

/// Decodes values. It stops at the first fault. Once the document is too large it keeps no
/// further value and only counts. So an invalid document takes no more stack and memory than a
/// valid one.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    /// The first fault of the document, and where it is. The callers prepend to the pointer as
    /// they return.
    fault: Option<(Fault, Pointer)>,
    /// Lower bound of the size of the values so far, in bytes of JSON text.
    text_bytes: usize,
}

/// A fault of one value.
#[derive(Debug, Clone, Copy)]
enum Fault {
    TooDeep,
    NotFinite,
    Nul,
}

/// Minimum size of a value as JSON text, in bytes: a character and a separator.
const MIN_VALUE_BYTES: usize = 2;

impl Decoder {
    /// Returns the fault of the document, if it has one.
    pub fn error(&self) -> Option<JsonError> {
        match &self.fault {
            Some((fault, at)) => Some(fault.at(at.clone())),
            None => self.is_too_large().then_some(JsonError::TooLarge {
                max: MAX_BYTES,
                size: Size::AtLeast(self.text_bytes),
            }),
        }
    }

    fn is_too_large(&self) -> bool {
        // The last value has no separator.
        self.text_bytes > MAX_BYTES + MIN_VALUE_BYTES
    }

    fn note(&mut self, fault: Fault) {
        self.fault.get_or_insert((fault, Pointer::default()));
    }

    /// Prepends to the pointer of the fault, if there is one.
    fn prepend(&mut self, token: impl fmt::Display) {
        if let Some((_, at)) = &mut self.fault {
            at.prepend(token);
        }
    }

    /// Decodes an entry of an object at level `depth` into `fields`, unless the document has a
    /// fault already.
    ///
    /// # Errors
    /// If the bytes are not a valid entry.
    pub fn entry(
        &mut self,
        fields: &mut Map<String, Value>,
        mut bytes: &[u8],
        depth: usize,
    ) -> Result<(), DecodeError> {
        if self.fault.is_some() {
            return Ok(());
        }
        let mut key = String::new();
        let mut value = Value::Null;
        while bytes.has_remaining() {
            match decode_key(&mut bytes)? {
                (ENTRY_KEY, WireType::LengthDelimited) => key = self.text(&mut bytes)?,
                (ENTRY_VALUE, WireType::LengthDelimited) if self.fault.is_none() => {
                    value = self.value(take(&mut bytes)?, depth)?;
                }
                (tag, wire_type) => skip(wire_type, tag, &mut bytes)?,
            }
        }
        if self.fault.is_some() {
            self.prepend(key);
        } else if !self.is_too_large() {
            fields.insert(key, value);
        }
        Ok(())
    }

    fn value(&mut self, mut bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
        let mut value = Value::Null;
        self.text_bytes += MIN_VALUE_BYTES;
        while bytes.has_remaining() && self.fault.is_none() {
            value = match decode_key(&mut bytes)? {
                (NULL_VALUE, WireType::Varint) => decode_varint(&mut bytes).map(|_| Value::Null)?,
                (BOOL_VALUE, WireType::Varint) => Value::Bool(decode_varint(&mut bytes)? != 0),
                (NUMBER_VALUE, WireType::SixtyFourBit) => self.number(&mut bytes)?,
                (STRING_VALUE, WireType::LengthDelimited) => Value::String(self.text(&mut bytes)?),
                (STRUCT_VALUE | LIST_VALUE, WireType::LengthDelimited) if depth >= MAX_DEPTH => {
                    self.note(Fault::TooDeep);
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
        while bytes.has_remaining() && self.fault.is_none() {
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
        let mut index: usize = 0;
        while bytes.has_remaining() && self.fault.is_none() {
            match decode_key(&mut bytes)? {
                (ENTRIES, WireType::LengthDelimited) => {
                    let value = self.value(take(&mut bytes)?, depth)?;
                    if self.fault.is_some() {
                        self.prepend(index);
                    } else if !self.is_too_large() {
                        values.push(value);
                    }
                    index += 1;
                }
                (tag, wire_type) => skip(wire_type, tag, &mut bytes)?,
            }
        }
        Ok(Value::Array(values))
    }

    fn number(&mut self, bytes: &mut &[u8]) -> Result<Value, DecodeError> {
        let value = bytes.try_get_f64_le().map_err(|_| truncated())?;
        if !value.is_finite() {
            self.note(Fault::NotFinite);
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
        self.text_bytes += text.len();
        if text.contains('\0') {
            self.note(Fault::Nul);
        }
        Ok(text)
    }
}

impl Fault {
    fn at(self, at: Pointer) -> JsonError {
        match self {
            Fault::TooDeep => JsonError::TooDeep { max: MAX_DEPTH, at },
            Fault::NotFinite => JsonError::NotFinite(at),
            Fault::Nul => JsonError::Nul(at),
        }
    }
}

fn skip(wire_type: WireType, tag: u32, bytes: &mut &[u8]) -> Result<(), DecodeError> {
    skip_field(wire_type, tag, bytes, DecodeContext::default())
}
