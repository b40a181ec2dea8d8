//! `google.protobuf.Struct`, as requests and responses hold it.

use std::{mem, sync::OnceLock};

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut, Bytes},
    encoding::{DecodeContext, WireType, skip_field},
};
use serde_json::{Map, Value};

use super::{
    JsonError, JsonLimits, JsonObject, MAX_BYTES, MAX_DEPTH, Pointer, Size,
    wire::{self, Decoder},
};

/// `google.protobuf.Struct`, as it was received or is about to be sent.
#[derive(Debug, Clone, Default)]
pub struct Struct(Form);

#[derive(Debug, Clone)]
enum Form {
    /// The document of a request: received by the service, or made by a client.
    Values(Values),
    /// The document of a response.
    Document(JsonObject),
}

/// The fields of a document, and its fault.
#[derive(Debug, Clone, Default)]
struct Values {
    fields: Map<String, Value>,
    /// The decoder that read the fields, with their fault.
    decoder: Decoder,
    /// The fields as protobuf, encoded on first use: the digest of the request and the
    /// stored document share them.
    encoded: OnceLock<Bytes>,
}

impl Values {
    fn encoded(&self) -> &Bytes {
        self.encoded.get_or_init(|| wire::encode(&self.fields))
    }
}

impl From<Map<String, Value>> for Values {
    fn from(fields: Map<String, Value>) -> Self {
        Values {
            fields,
            ..Values::default()
        }
    }
}

impl Struct {
    /// Returns whether the document has neither keys nor a fault.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Form::Values(values) => values.fields.is_empty() && values.decoder.error().is_none(),
            Form::Document(document) => document.is_empty(),
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
        let deeper = match &self.0 {
            Form::Values(values) => Pointer::to_deeper(&values.fields, max),
            Form::Document(document) => {
                Pointer::to_deeper(&document.fields().unwrap_or_default(), max)
            }
        };
        deeper.map_or(Ok(()), |at| Err(JsonError::TooDeep { max, at }))
    }

    /// Returns the document as protobuf. The keys of a request's document are sorted.
    fn encoded(&self) -> &Bytes {
        match &self.0 {
            Form::Values(values) => values.encoded(),
            Form::Document(document) => document.encoded(),
        }
    }
}

impl Default for Form {
    fn default() -> Self {
        Form::Values(Values::default())
    }
}

impl PartialEq for Struct {
    fn eq(&self, other: &Self) -> bool {
        let parts = |it: &Self| match &it.0 {
            Form::Values(values) => (Some(values.fields.clone()), values.decoder.error()),
            Form::Document(document) => (document.fields(), None),
        };
        parts(self) == parts(other)
    }
}

impl TryFrom<Struct> for JsonObject {
    type Error = JsonError;

    fn try_from(document: Struct) -> Result<Self, JsonError> {
        let object = match document.0 {
            Form::Document(object) => object,
            Form::Values(values) => match values.decoder.error() {
                Some(error) => return Err(error),
                None => JsonObject::encoded_as(values.encoded().clone()),
            },
        };
        object.check_size()?;
        Ok(object)
    }
}

impl From<JsonObject> for Struct {
    fn from(object: JsonObject) -> Self {
        Struct(Form::Document(object))
    }
}

impl From<Map<String, Value>> for Struct {
    fn from(fields: Map<String, Value>) -> Self {
        Struct(Form::Values(fields.into()))
    }
}

impl From<Struct> for Map<String, Value> {
    fn from(document: Struct) -> Self {
        match document.0 {
            Form::Values(values) => values.fields,
            Form::Document(document) => document.fields().unwrap_or_default(),
        }
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
        let mut values = match mem::take(&mut self.0) {
            Form::Values(values) => values,
            Form::Document(document) => Values::from(document.fields().unwrap_or_default()),
        };
        values.decoder.entry(&mut values.fields, &entry, 1)?;
        values.encoded = OnceLock::new();
        self.0 = Form::Values(values);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.encoded().len()
    }

    fn clear(&mut self) {
        *self = Struct::default();
    }
}
