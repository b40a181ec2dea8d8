//! Encodes a `Struct` again, in the only form that [`super::encode`] has for its values.

use prost::{DecodeError, bytes::Bytes};

use super::{
    ENTRIES, ENTRY_KEY, ENTRY_VALUE, LIST_VALUE, STRUCT_VALUE,
    encode::Target,
    parse::{self, Kind},
};

/// Encodes the `Struct` of a request as [`super::encode`] would encode its values: keys are sorted,
/// the last of equal keys counts, and unknown fields are left out. Builds no values. The result is at
/// most twice as long, because values without a kind become null.
///
/// The checker has to accept the document first: it limits the depth of the recursion.
///
/// # Errors
/// If the bytes are not a valid message.
pub fn normalize(bytes: &[u8]) -> Result<Bytes, DecodeError> {
    let mut target = Target::default();
    object(bytes, &mut target)?;
    Ok(target.finish())
}

fn object(mut bytes: &[u8], target: &mut Target) -> Result<(), DecodeError> {
    let mut entries = Vec::new();
    while let Some(bytes) = parse::next(&mut bytes)? {
        entries.push(parse::entry(bytes)?);
    }
    // Equal keys stay in their order.
    entries.sort_by_key(|(key, _)| *key);
    let mut entries = entries.into_iter().peekable();
    while let Some((key, bytes)) = entries.next() {
        if entries.peek().is_some_and(|(next, _)| *next == key) {
            continue;
        }
        let entry = target.open(ENTRIES);
        target.text(ENTRY_KEY, key);
        value(ENTRY_VALUE, bytes, target)?;
        target.close(entry);
    }
    Ok(())
}

fn array(mut bytes: &[u8], target: &mut Target) -> Result<(), DecodeError> {
    while let Some(bytes) = parse::next(&mut bytes)? {
        value(ENTRIES, bytes, target)?;
    }
    Ok(())
}

fn value(tag: u32, bytes: &[u8], target: &mut Target) -> Result<(), DecodeError> {
    let field = target.open(tag);
    match parse::kind(bytes)? {
        Kind::Null => target.null(),
        Kind::Bool(value) => target.bool(value),
        // JSON has no negative zero.
        Kind::Number(0.0) => target.number(0.0),
        Kind::Number(number) => target.number(number),
        Kind::Text(text) => target.text(super::STRING_VALUE, text),
        Kind::Object(entries) => {
            let field = target.open(STRUCT_VALUE);
            object(entries, target)?;
            target.close(field);
        }
        Kind::Array(values) => {
            let field = target.open(LIST_VALUE);
            array(values, target)?;
            target.close(field);
        }
    }
    target.close(field);
    Ok(())
}
