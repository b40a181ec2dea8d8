//! `google.protobuf.Struct`, `Value` and `ListValue` in protobuf's wire format,
//! straight from and to serde_json's values.

use std::{mem, sync::OnceLock};

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut},
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use serde_json::{Map, Value};

mod encode;
mod text;

pub(super) use encode::{encode, encode_text};
pub(super) use text::{Document, decode};

use super::{Form, JsonError, MAX_BYTES, MAX_DEPTH, Struct, Values};

/// `Struct.fields`, a map, and `ListValue.values`.
const ENTRIES: u32 = 1;
const ENTRY_KEY: u32 = 1;
const ENTRY_VALUE: u32 = 2;
/// The alternatives of `Value.kind`.
const NULL_VALUE: u32 = 1;
const NUMBER_VALUE: u32 = 2;
const STRING_VALUE: u32 = 3;
const BOOL_VALUE: u32 = 4;
const STRUCT_VALUE: u32 = 5;
const LIST_VALUE: u32 = 6;

/// Integers up to here are exact in a double, and are stored as integers.
const MAX_EXACT: f64 = 9_007_199_254_740_991.0;

impl Message for Struct {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(self.encoded());
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != ENTRIES || wire_type != WireType::LengthDelimited {
            return skip_field(wire_type, tag, buffer, context);
        }
        let length = take_length(buffer)?;
        let entry = buffer.copy_to_bytes(length);
        let mut values = match mem::take(&mut self.0) {
            Form::Values(values) => values,
            Form::Document(document) => Values::from(document.fields().unwrap_or_default()),
        };
        let mut decoder = Decoder {
            fault: values.fault,
            spent: values.spent,
        };
        decoder.entry(&mut values.fields, &entry, 1)?;
        self.0 = Form::Values(Values {
            fields: values.fields,
            fault: decoder.fault,
            spent: decoder.spent,
            encoded: OnceLock::new(),
        });
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.encoded().len()
    }

    fn clear(&mut self) {
        *self = Struct::default();
    }
}

/// Reads values; remembers the first thing that is wrong with them, and reads no
/// further then: neither its stack nor the memory and the time that a document
/// takes grow beyond what a good one needs.
struct Decoder {
    fault: Option<JsonError>,
    /// How many bytes of JSON text the values so far take at least.
    spent: usize,
}

/// What a value takes at least as JSON text: a character and a separator.
const LEAST: usize = 2;

impl Decoder {
    fn note(&mut self, fault: JsonError) {
        self.fault.get_or_insert(fault);
    }

    fn spend(&mut self, bytes: usize) {
        self.spent += bytes;
        // The last value has no separator.
        if self.spent > MAX_BYTES + LEAST {
            self.note(JsonError::TooLarge);
        }
    }

    fn entry(
        &mut self,
        fields: &mut Map<String, Value>,
        mut bytes: &[u8],
        depth: usize,
    ) -> Result<(), DecodeError> {
        let mut key = String::new();
        let mut value = Value::Null;
        while bytes.has_remaining() && self.fault.is_none() {
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
        self.spend(LEAST);
        while bytes.has_remaining() && self.fault.is_none() {
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
        while bytes.has_remaining() && self.fault.is_none() {
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
        self.spend(text.len());
        if text.contains('\0') {
            self.note(JsonError::Nul);
        }
        Ok(text)
    }
}

/// A number as JSON has it; null if JSON cannot say it.
fn number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() <= MAX_EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "checked just above")]
        return Value::from(number as i64);
    }
    Value::from(number)
}

/// Takes the length of a length-delimited field, all of which has to be there.
fn take_length(buffer: &mut impl Buf) -> Result<usize, DecodeError> {
    match usize::try_from(decode_varint(buffer)?) {
        Ok(length) if length <= buffer.remaining() => Ok(length),
        _ => Err(truncated()),
    }
}

/// Takes the bytes of a length-delimited field.
fn take<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let length = take_length(bytes)?;
    let (field, rest) = bytes.split_at_checked(length).ok_or_else(truncated)?;
    *bytes = rest;
    Ok(field)
}

fn skip(wire_type: WireType, tag: u32, bytes: &mut &[u8]) -> Result<(), DecodeError> {
    skip_field(wire_type, tag, bytes, DecodeContext::default())
}

/// prost offers no way to make an error of one's own; this is the one that it
/// gives for a length-delimited field that is longer than what is left.
fn truncated() -> DecodeError {
    match prost::encoding::string::merge(
        WireType::LengthDelimited,
        &mut String::new(),
        &mut [1_u8].as_slice(),
        DecodeContext::default(),
    ) {
        Err(error) => error,
        Ok(()) => unreachable!("a string of one byte in no bytes"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What prost makes of the same document, as the reference.
    fn reference(value: &Value) -> prost_types::Value {
        use prost_types::value::Kind;
        let kind = match value {
            Value::Null => Kind::NullValue(0),
            Value::Bool(value) => Kind::BoolValue(*value),
            Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
            Value::String(text) => Kind::StringValue(text.clone()),
            Value::Array(values) => Kind::ListValue(prost_types::ListValue {
                values: values.iter().map(reference).collect(),
            }),
            Value::Object(fields) => Kind::StructValue(reference_struct(fields)),
        };
        prost_types::Value { kind: Some(kind) }
    }

    fn reference_struct(fields: &Map<String, Value>) -> prost_types::Struct {
        let fields = fields.iter();
        prost_types::Struct {
            fields: fields.map(|(k, v)| (k.clone(), reference(v))).collect(),
        }
    }

    fn fields(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(fields) => fields,
            other => panic!("{other} is no object"),
        }
    }

    fn nested(levels: usize) -> Map<String, Value> {
        let inner = (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        fields(inner)
    }

    fn fault_of(bytes: &[u8]) -> Option<JsonError> {
        let document = Struct::decode(bytes).unwrap();
        crate::domain::json::JsonObject::try_from(document).err()
    }

    #[test]
    fn text_and_values_become_the_same_bytes_and_these_the_same_text() {
        for text in [
            "{}".to_owned(),
            r#"{"":null,"a":[true,false,[],{}],"b":{"c":{"d":[{"e":0.5}]}}}"#.to_owned(),
            r#"{"escaped":"\u0001\"\\Ü€😀","exp":1e300,"huge":9007199254740993,"minus":-12}"#
                .to_owned(),
            // Lengths of one, two, three and four bytes.
            json!({"a": ["x".repeat(127)], "b": ["x".repeat(128)]}).to_string(),
            json!({"a": ["x".repeat(16_384)], "b": {"c": "x".repeat(2_097_152)}}).to_string(),
        ] {
            let values = fields(serde_json::from_str(&text).unwrap());
            let bytes = encode_text(text.as_bytes()).unwrap();
            assert_eq!(bytes, encode(&values));
            assert_eq!(
                prost_types::Struct::decode(bytes.clone()).unwrap(),
                reference_struct(&values)
            );
            let written = serde_json::to_string(&Document(&bytes)).unwrap();
            assert_eq!(encode_text(written.as_bytes()).unwrap(), bytes);
            assert_eq!(decode(&bytes).map(|it| encode(&it)), Some(bytes));
        }
    }

    #[test]
    fn long_texts_far_down_become_the_bytes_of_prost() {
        let text = json!("x".repeat(1_000_000));
        let document = (0..MAX_DEPTH).fold(text, |inner, _| json!({ "a": inner, "b": [1] }));
        let document = fields(document);
        let bytes = encode(&document);
        assert_eq!(bytes, reference_struct(&document).encode_to_vec());
        assert_eq!(decode(&bytes), Some(document));
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for text in ["", "[]", "null", "{", r#"{"a":}"#, "{} {}"] {
            assert!(encode_text(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_bytes_are_those_of_prost_in_both_directions() {
        let document = fields(json!({
            "null": null, "yes": true, "no": false, "one": 1, "half": 0.5, "big": 1e300,
            "minus": -7, "text": "Grüße", "": "", "list": [1, "x", [], {}, null],
            "object": {"a": {"b": {"c": []}}},
        }));
        let ours = Struct::from(document.clone()).encode_to_vec();
        assert_eq!(
            prost_types::Struct::decode(ours.as_slice()).unwrap(),
            reference_struct(&document)
        );
        let theirs = reference_struct(&document).encode_to_vec();
        assert_eq!(
            Struct::decode(theirs.as_slice()).unwrap(),
            Struct::from(document)
        );
    }

    #[test]
    fn nesting_is_allowed_to_the_limit_and_noted_beyond() {
        for (levels, fault) in [
            (MAX_DEPTH, None),
            (MAX_DEPTH + 1, Some(JsonError::TooDeep)),
            (10 * MAX_DEPTH, Some(JsonError::TooDeep)),
        ] {
            let bytes = Struct::from(nested(levels)).encode_to_vec();
            assert_eq!(fault_of(&bytes), fault);
        }
    }

    #[test]
    fn what_json_cannot_say_is_noted() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let kind = prost_types::value::Kind::NumberValue(number);
            let value = prost_types::Value { kind: Some(kind) };
            let fields = [("a".to_owned(), value)].into();
            let bytes = prost_types::Struct { fields }.encode_to_vec();
            assert_eq!(fault_of(&bytes), Some(JsonError::NotFinite));
        }
        for document in [json!({"a\0": 1}), json!({"a": ["\0"]})] {
            let bytes = Struct::from(fields(document)).encode_to_vec();
            assert_eq!(fault_of(&bytes), Some(JsonError::Nul));
        }
    }

    #[test]
    fn truncated_bytes_are_an_error_and_never_a_panic() {
        let bytes = Struct::from(fields(json!({"a": [1, {"b": "c"}], "d": 2.5}))).encode_to_vec();
        for end in 0..bytes.len() {
            let _ = Struct::decode(&bytes[..end]);
        }
    }
}
