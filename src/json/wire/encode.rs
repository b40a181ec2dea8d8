//! The way out.

use prost::{
    bytes::BufMut,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use serde_json::{Map, Value};

use super::{
    BOOL_VALUE, ENTRIES, ENTRY_KEY, ENTRY_VALUE, LIST_VALUE, NULL_VALUE, NUMBER_VALUE,
    STRING_VALUE, STRUCT_VALUE,
};

/// Writes the fields of a `Struct`.
pub(super) fn encode_fields(fields: &Map<String, Value>, buffer: &mut impl BufMut) {
    for (key, value) in fields {
        encode_head(ENTRIES, entry_len(key, value), buffer);
        encode_text(ENTRY_KEY, key, buffer);
        encode_head(ENTRY_VALUE, value_len(value), buffer);
        encode_value(value, buffer);
    }
}

fn encode_value(value: &Value, buffer: &mut impl BufMut) {
    match value {
        Value::Null => encode_varint_field(NULL_VALUE, 0, buffer),
        Value::Bool(value) => encode_varint_field(BOOL_VALUE, u64::from(*value), buffer),
        Value::Number(number) => {
            encode_key(NUMBER_VALUE, WireType::SixtyFourBit, buffer);
            buffer.put_f64_le(number.as_f64().unwrap_or_default());
        }
        Value::String(text) => encode_text(STRING_VALUE, text, buffer),
        Value::Object(fields) => {
            encode_head(STRUCT_VALUE, fields_len(fields), buffer);
            encode_fields(fields, buffer);
        }
        Value::Array(values) => {
            encode_head(LIST_VALUE, values_len(values), buffer);
            for value in values {
                encode_head(ENTRIES, value_len(value), buffer);
                encode_value(value, buffer);
            }
        }
    }
}

fn encode_varint_field(tag: u32, value: u64, buffer: &mut impl BufMut) {
    encode_key(tag, WireType::Varint, buffer);
    encode_varint(value, buffer);
}

fn encode_head(tag: u32, length: usize, buffer: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
}

fn encode_text(tag: u32, text: &str, buffer: &mut impl BufMut) {
    encode_head(tag, text.len(), buffer);
    buffer.put_slice(text.as_bytes());
}

fn delimited_len(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

fn entry_len(key: &str, value: &Value) -> usize {
    delimited_len(ENTRY_KEY, key.len()) + delimited_len(ENTRY_VALUE, value_len(value))
}

/// The length of the fields of a `Struct`, in bytes.
pub fn fields_len(fields: &Map<String, Value>) -> usize {
    let entries = fields.iter();
    entries
        .map(|(key, value)| delimited_len(ENTRIES, entry_len(key, value)))
        .sum()
}

fn values_len(values: &[Value]) -> usize {
    let values = values.iter();
    values
        .map(|value| delimited_len(ENTRIES, value_len(value)))
        .sum()
}

/// One byte of key and one of value, for null and for a boolean.
const SMALL_LEN: usize = 2;
/// One byte of key and eight of value.
const NUMBER_LEN: usize = 9;

fn value_len(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => SMALL_LEN,
        Value::Number(_) => NUMBER_LEN,
        Value::String(text) => delimited_len(STRING_VALUE, text.len()),
        Value::Object(fields) => delimited_len(STRUCT_VALUE, fields_len(fields)),
        Value::Array(values) => delimited_len(LIST_VALUE, values_len(values)),
    }
}
