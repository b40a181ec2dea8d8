//! The protobuf encoding of `google.protobuf.Struct`, `Value` and `ListValue`, without
//! prost's types in between: values or JSON text to wire, wire to its normal form, wire to values or
//! JSON text.

mod checker;
mod encode;
mod normalize;
mod parse;
mod serialize;

use prost::{
    DecodeError,
    bytes::Buf,
    encoding::{DecodeContext, WireType, decode_varint},
};

pub(super) use self::{
    checker::Checker,
    encode::{encode, encode_text},
    normalize::normalize,
    serialize::{Document, decode},
};

/// The tag of `Struct.fields`, a map, and of `ListValue.values`.
pub(super) const ENTRIES: u32 = 1;
const ENTRY_KEY: u32 = 1;
const ENTRY_VALUE: u32 = 2;
/// The tags of the alternatives of `Value.kind`.
const NULL_VALUE: u32 = 1;
const NUMBER_VALUE: u32 = 2;
const STRING_VALUE: u32 = 3;
const BOOL_VALUE: u32 = 4;
const STRUCT_VALUE: u32 = 5;
const LIST_VALUE: u32 = 6;

/// Takes the length of a length-delimited field. The buffer has to hold the whole field.
pub(super) fn take_length(buffer: &mut impl Buf) -> Result<usize, DecodeError> {
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

/// Returns prost's error for a length-delimited field that is longer than the buffer. prost
/// has no public constructor for its errors.
fn truncated() -> DecodeError {
    match prost::encoding::string::merge(
        WireType::LengthDelimited,
        &mut String::new(),
        &mut [1_u8].as_slice(),
        DecodeContext::default(),
    ) {
        Err(error) => error,
        Ok(()) => unreachable!("decoded a string of one byte from an empty buffer"),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::domain::json::{JsonLimits, JsonObject, MAX_DEPTH, Struct};

    /// Converts a value to prost's type, the reference.
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
            other => panic!("{other} is not an object"),
        }
    }

    fn nested(levels: usize) -> Map<String, Value> {
        let inner = (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        fields(inner)
    }

    fn error_of(bytes: &[u8]) -> Option<String> {
        let document = Struct::decode(bytes).unwrap();
        let error = JsonObject::try_from(document).err();
        error.map(|error| error.to_string())
    }

    #[test]
    fn text_and_values_encode_to_the_same_bytes_and_round_trip() {
        for text in [
            "{}".to_owned(),
            r#"{"":null,"a":[true,false,[],{}],"b":{"c":{"d":[{"e":0.5}]}}}"#.to_owned(),
            r#"{"escaped":"\u0001\"\\Ü€😀","exp":1e300,"huge":9007199254740993,"minus":-12}"#
                .to_owned(),
            // Fields whose lengths take one, two, three and four bytes.
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
    fn long_deeply_nested_texts_encode_as_prost_encodes_them() {
        let text = json!("x".repeat(1_000_000));
        let document = (0..MAX_DEPTH).fold(text, |inner, _| json!({ "a": inner, "b": [1] }));
        let document = fields(document);
        let bytes = encode(&document);
        assert_eq!(bytes, reference_struct(&document).encode_to_vec());
        assert_eq!(decode(&bytes), Some(document));
    }

    #[test]
    fn text_that_is_not_a_json_object_is_rejected() {
        for text in ["", "[]", "null", "{", r#"{"a":}"#, "{} {}"] {
            assert!(encode_text(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn encoding_and_decoding_agree_with_prost() {
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

    /// Encodes a length-delimited field of less than 128 bytes.
    fn field(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut field = vec![tag << 3 | 2, u8::try_from(content.len()).unwrap()];
        field.extend_from_slice(content);
        field
    }

    /// Encodes an entry of an object.
    fn entry(key: &str, value: &[u8]) -> Vec<u8> {
        let entry = [field(1, key.as_bytes()), field(2, value)].concat();
        field(1, &entry)
    }

    #[test]
    fn unusual_encodings_are_stored_like_usual_ones() {
        let one = json!(1);
        let text = field(3, b"x");
        let number = [&[0x11][..], &1.0_f64.to_le_bytes()].concat();
        let minus_zero = [&[0x11][..], &(-0.0_f64).to_le_bytes()].concat();
        let unknown = [field(15, b"new"), vec![0x78, 5]].concat();
        for (bytes, expected) in [
            // Keys that are not sorted, and equal ones.
            (
                [
                    entry("b", &[0x20, 1]),
                    entry("a", &number),
                    entry("b", &number),
                ]
                .concat(),
                json!({"a": one, "b": one}),
            ),
            // Two kinds, none, and an empty entry.
            (
                entry("a", &[&text[..], &number].concat()),
                json!({"a": one}),
            ),
            (
                entry("a", &[&number[..], &field(6, b"")].concat()),
                json!({"a": []}),
            ),
            (entry("a", b""), json!({"a": null})),
            (field(1, b""), json!({"": null})),
            // A list of values without a kind, and of empty entries.
            (
                entry("a", &field(6, &[field(1, b""), field(1, b"")].concat())),
                json!({"a": [null, null]}),
            ),
            (
                entry("a", &field(6, &field(1, &field(5, &field(1, b""))))),
                json!({"a": [{"": null}]}),
            ),
            // The value before the key, other numbers for true and null, and unknown fields.
            (
                field(1, &[field(2, &[0x20, 9]), field(1, b"a")].concat()),
                json!({"a": true}),
            ),
            (entry("a", &[0x08, 7]), json!({"a": null})),
            (
                [
                    unknown.clone(),
                    entry("a", &[&unknown[..], &number].concat()),
                ]
                .concat(),
                json!({"a": one}),
            ),
            (entry("a", &minus_zero), json!({"a": 0})),
            (entry("a", &[0x08, 0]), json!({"a": null})),
        ] {
            let document = Struct::decode(bytes.as_slice()).unwrap();
            let stored = JsonObject::try_from(document).unwrap();
            assert_eq!(
                stored.encoded(),
                &encode(&fields(expected.clone())),
                "{expected}"
            );
            assert_eq!(stored.fields(), Some(fields(expected)));
        }
    }

    #[test]
    fn keys_and_texts_that_are_not_utf8_are_malformed() {
        for bytes in [
            field(1, &field(1, b"\xff")),
            entry("a", &field(3, b"\xff")),
            entry("a", &field(6, &field(1, &field(3, b"\xff")))),
        ] {
            let error = Struct::decode(bytes.as_slice()).unwrap_err();
            assert!(error.to_string().contains("UTF-8"), "{error}");
        }
    }

    #[test]
    fn nesting_is_accepted_up_to_the_limit() {
        let rule = "must not nest deeper than 64 levels; the value at";
        // A pointer of 128 characters is cut to 100.
        let at = "/a".repeat(50);
        let too_deep = Some(format!("{rule} {at}… does"));
        for (levels, error) in [
            (MAX_DEPTH, None),
            (MAX_DEPTH + 1, too_deep.clone()),
            (10 * MAX_DEPTH, too_deep),
        ] {
            let bytes = Struct::from(nested(levels)).encode_to_vec();
            assert_eq!(error_of(&bytes), error);
        }
    }

    #[test]
    fn a_lower_limit_of_the_depth_is_checked_with_a_pointer_too() {
        let limits = |depth| JsonLimits {
            depth,
            ..JsonLimits::default()
        };
        let document = || Struct::from(fields(json!({"a": 1, "b": [{"c/d": [2]}]})));
        assert!(document().into_object(limits(4)).is_ok());
        for (depth, at) in [(3, "/b/0/c~1d"), (2, "/b/0"), (1, "/b")] {
            let error = document().into_object(limits(depth)).unwrap_err();
            let error = error.to_string();
            assert!(
                error.ends_with(&format!("the value at {at} does")),
                "{error}"
            );
        }
        let deep = Struct::decode(Struct::from(nested(100)).encode_to_vec().as_slice()).unwrap();
        let error = deep.into_object(limits(1)).unwrap_err().to_string();
        assert!(
            error.starts_with("must not nest deeper than 1 level;"),
            "{error}"
        );
    }

    #[test]
    fn a_document_that_is_too_large_is_counted_to_its_end() {
        let ones = Value::Array(vec![json!(1); 600_000]);
        let document = Struct::from(fields(json!({"a": {"b": ones}})));
        let expected = "must be at most 1048576 bytes of JSON text, got at least 1200006";
        assert_eq!(
            error_of(&document.encode_to_vec()).as_deref(),
            Some(expected)
        );
    }

    #[test]
    fn numbers_and_texts_that_json_cannot_store_are_faults_with_a_pointer() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let kind = prost_types::value::Kind::NumberValue(number);
            let value = prost_types::Value { kind: Some(kind) };
            let fields = [("a".to_owned(), value)].into();
            let bytes = prost_types::Struct { fields }.encode_to_vec();
            let expected = "must not contain NaN or an infinite number; the value at /a is one";
            assert_eq!(error_of(&bytes).as_deref(), Some(expected));
        }
        for (document, at) in [
            (json!({"a\0": 1}), r"/a\u{0}"),
            (json!({"a": {"b\0": 1}, "c": 2}), r"/a/b\u{0}"),
            (json!({"a": ["x", {"~b/": "\0"}]}), "/a/1/~0b~1"),
            (json!({"": [[0, 1, "\0"]]}), "//0/2"),
        ] {
            let bytes = Struct::from(fields(document)).encode_to_vec();
            let expected =
                format!("must not contain a NUL character; the key or value at {at} has one");
            assert_eq!(error_of(&bytes), Some(expected));
        }
    }

    #[test]
    fn truncated_bytes_do_not_panic() {
        let bytes = Struct::from(fields(json!({"a": [1, {"b": "c"}], "d": 2.5}))).encode_to_vec();
        for end in 0..bytes.len() {
            let _ = Struct::decode(&bytes[..end]);
        }
    }
}
