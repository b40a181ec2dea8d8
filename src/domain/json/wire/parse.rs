//! Parses a `Struct` without building its values: each function returns parts of its input.
//!
//! The checker, the normalizer and the serializer share these functions, so that they agree on what
//! the bytes mean.

use std::str;

use prost::{
    DecodeError,
    bytes::Buf,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use super::{
    BOOL_VALUE, ENTRIES, ENTRY_KEY, ENTRY_VALUE, LIST_VALUE, NULL_VALUE, NUMBER_VALUE,
    STRING_VALUE, STRUCT_VALUE, take, truncated,
};

/// The content of a `Value`. Objects and arrays are still encoded.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(&'a str),
    Object(&'a [u8]),
    Array(&'a [u8]),
}

/// Parses a `Value`. The last of several kinds counts. A value without a kind is null.
///
/// # Errors
/// If the bytes are not a valid message.
pub fn kind(mut bytes: &[u8]) -> Result<Kind<'_>, DecodeError> {
    let bytes = &mut bytes;
    let mut kind = Kind::Null;
    while !bytes.is_empty() {
        kind = match decode_key(bytes)? {
            (NULL_VALUE, WireType::Varint) => decode_varint(bytes).map(|_| Kind::Null)?,
            (BOOL_VALUE, WireType::Varint) => Kind::Bool(decode_varint(bytes)? != 0),
            (NUMBER_VALUE, WireType::SixtyFourBit) => {
                Kind::Number(bytes.try_get_f64_le().map_err(|_| truncated())?)
            }
            (STRING_VALUE, WireType::LengthDelimited) => Kind::Text(text(bytes)?),
            (STRUCT_VALUE, WireType::LengthDelimited) => Kind::Object(take(bytes)?),
            (LIST_VALUE, WireType::LengthDelimited) => Kind::Array(take(bytes)?),
            (tag, wire_type) => {
                skip(wire_type, tag, bytes)?;
                kind
            }
        };
    }
    Ok(kind)
}

/// Parses an entry of a `Struct`: its key, and its encoded value. What is missing is empty.
///
/// # Errors
/// If the bytes are not a valid message.
pub fn entry(mut bytes: &[u8]) -> Result<(&str, &[u8]), DecodeError> {
    let bytes = &mut bytes;
    let (mut key, mut value) = ("", [].as_slice());
    while !bytes.is_empty() {
        match decode_key(bytes)? {
            (ENTRY_KEY, WireType::LengthDelimited) => key = text(bytes)?,
            (ENTRY_VALUE, WireType::LengthDelimited) => value = take(bytes)?,
            (tag, wire_type) => skip(wire_type, tag, bytes)?,
        }
    }
    Ok((key, value))
}

/// Takes the next entry of a `Struct` or the next value of a `ListValue`; `None` at the end.
///
/// # Errors
/// If the bytes are not a valid message.
pub fn next<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, DecodeError> {
    while !bytes.is_empty() {
        match decode_key(bytes)? {
            (ENTRIES, WireType::LengthDelimited) => return take(bytes).map(Some),
            (tag, wire_type) => skip(wire_type, tag, bytes)?,
        }
    }
    Ok(None)
}

fn skip(wire_type: WireType, tag: u32, bytes: &mut &[u8]) -> Result<(), DecodeError> {
    skip_field(wire_type, tag, bytes, DecodeContext::default())
}

fn text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    let field = *bytes;
    str::from_utf8(take(bytes)?).map_err(|_| not_utf8(field))
}

/// Returns prost's error for a text field that is not UTF-8. prost has no public constructor for its
/// errors.
fn not_utf8(mut field: &[u8]) -> DecodeError {
    let mut text = String::new();
    let context = DecodeContext::default();
    let merged =
        prost::encoding::string::merge(WireType::LengthDelimited, &mut text, &mut field, context);
    merged.err().unwrap_or_else(truncated)
}
