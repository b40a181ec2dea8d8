//! `google.protobuf.Struct`, as requests and responses hold it.

use std::{mem, sync::OnceLock};

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut, Bytes},
    encoding::{DecodeContext, WireType, encode_key, encode_varint, skip_field},
};
use serde_json::{Map, Value};

use super::{
    JsonError, JsonLimits, JsonObject, MAX_BYTES, MAX_DEPTH, Size,
    wire::{self, Checker},
};

/// `google.protobuf.Struct`, as it was received or is about to be sent.
#[derive(Debug, Clone, Default)]
pub struct Struct(Form);

#[derive(Debug, Clone)]
enum Form {
    /// A document that was received.
    Received(Received),
    /// A document that was made: by a client, or from a row.
    Made(JsonObject),
}

/// The entries of a received document, and its fault.
///
/// The entries stay encoded. As values they would take up to a hundred times their bytes, which the
/// byte budget of the requests does not count.
#[derive(Debug, Clone, Default)]
struct Received {
    /// The entries as they arrived; none if the document has a fault.
    entries: Vec<u8>,
    checker: Checker,
    /// The entries in their normal form, encoded on first use: the digest of the request and the
    /// stored document share them.
    normal: OnceLock<Bytes>,
}

impl Received {
    /// Adds an entry, and checks it.
    fn add(&mut self, entry: &[u8]) -> Result<(), DecodeError> {
        self.checker.entry(entry, 1)?;
        self.normal = OnceLock::new();
        if self.checker.has_fault() {
            self.entries = Vec::new();
            return Ok(());
        }
        encode_key(wire::ENTRIES, WireType::LengthDelimited, &mut self.entries);
        encode_varint(entry.len() as u64, &mut self.entries);
        self.entries.extend_from_slice(entry);
        Ok(())
    }

    fn normal(&self) -> &Bytes {
        // The checker has parsed the entries in the same way.
        self.normal
            .get_or_init(|| wire::normalize(&self.entries).unwrap_or_default())
    }
}

impl Struct {
    /// Returns whether the document has neither keys nor a fault.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Form::Received(received) => received.entries.is_empty() && !self.has_fault(),
            Form::Made(document) => document.is_empty(),
        }
    }

    /// Returns whether the document has a fault. Nothing of it is kept then.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        match &self.0 {
            Form::Received(received) => received.checker.has_fault(),
            Form::Made(_) => false,
        }
    }

    /// Unsets an empty document, so that a request has the same digest with and without it.
    pub fn unset_if_empty(document: &mut Option<Struct>) {
        if document.as_ref().is_some_and(Struct::is_empty) {
            *document = None;
        }
    }

    /// Converts the document to an object within these limits.
    ///
    /// # Errors
    /// The first fault of the document.
    pub fn into_object(self, limits: JsonLimits) -> Result<JsonObject, JsonError> {
        if limits.depth < MAX_DEPTH {
            self.check_depth(limits.depth)?;
        }
        let object = JsonObject::try_from(self).map_err(|error| error.with_limits(limits))?;
        if limits.text_bytes < MAX_BYTES && object.text_len() > limits.text_bytes {
            return Err(JsonError::TooLarge {
                max: limits.text_bytes,
                size: Size::Exactly(object.text_len()),
            });
        }
        if object.wire_len() > limits.wire_bytes {
            return Err(JsonError::TooLargeOnWire {
                max: limits.wire_bytes,
                size: object.wire_len(),
            });
        }
        Ok(object)
    }

    fn check_depth(&self, max: usize) -> Result<(), JsonError> {
        let mut checker = Checker::to_depth(max);
        // The bytes have been parsed before.
        let _ = checker.object(self.encoded(), 1);
        match checker.error() {
            Some(error @ JsonError::TooDeep { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns the document as protobuf. The keys of a request's document are sorted.
    fn encoded(&self) -> &Bytes {
        match &self.0 {
            Form::Received(received) => received.normal(),
            Form::Made(document) => document.encoded(),
        }
    }
}

impl Default for Form {
    fn default() -> Self {
        Form::Received(Received::default())
    }
}

impl PartialEq for Struct {
    fn eq(&self, other: &Self) -> bool {
        let object = |it: &Self| JsonObject::encoded_as(it.encoded().clone());
        let fault = |it: &Self| match &it.0 {
            Form::Received(received) => received.checker.error(),
            Form::Made(_) => None,
        };
        object(self) == object(other) && fault(self) == fault(other)
    }
}

impl TryFrom<Struct> for JsonObject {
    type Error = JsonError;

    fn try_from(document: Struct) -> Result<Self, JsonError> {
        let object = match document.0 {
            Form::Made(object) => object,
            Form::Received(received) => match received.checker.error() {
                Some(error) => return Err(error),
                None => JsonObject::encoded_as(received.normal().clone()),
            },
        };
        object.check_size()?;
        Ok(object)
    }
}

impl From<JsonObject> for Struct {
    fn from(object: JsonObject) -> Self {
        Struct(Form::Made(object))
    }
}

impl From<Map<String, Value>> for Struct {
    fn from(fields: Map<String, Value>) -> Self {
        JsonObject::encoded_as(wire::encode(&fields)).into()
    }
}

impl From<Struct> for Map<String, Value> {
    fn from(document: Struct) -> Self {
        let object = JsonObject::encoded_as(document.encoded().clone());
        object.fields().unwrap_or_default()
    }
}

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
        if tag != wire::ENTRIES || wire_type != WireType::LengthDelimited {
            return skip_field(wire_type, tag, buffer, context);
        }
        let length = wire::take_length(buffer)?;
        let entry = buffer.copy_to_bytes(length);
        let mut received = match mem::take(&mut self.0) {
            Form::Received(received) => received,
            Form::Made(document) => Received {
                entries: document.encoded().to_vec(),
                ..Received::default()
            },
        };
        received.add(&entry)?;
        self.0 = Form::Received(received);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.encoded().len()
    }

    fn clear(&mut self) {
        *self = Struct::default();
    }
}
