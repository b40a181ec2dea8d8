//! The message with the transitions of a watch. The server encodes a transition once for all watchers
//! that want it.

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut, Bytes},
    encoding::{self, DecodeContext, WireType, message, skip_field},
};

use super::{Part, Parts, v1::FsmTransition};

/// The number of the field `transitions`.
const TRANSITIONS: u32 = 1;

/// Transitions in the order of their positions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WatchedTransitions {
    /// The transitions, of which a message that was received has at least one.
    pub transitions: Vec<FsmTransition>,
    /// Further ones, which are encoded.
    encoded: Vec<Bytes>,
}

impl WatchedTransitions {
    /// Makes a message of encoded [`FsmTransition`]s.
    #[must_use]
    pub fn of_encoded(encoded: Vec<Bytes>) -> Self {
        WatchedTransitions {
            transitions: Vec::new(),
            encoded,
        }
    }
}

impl Message for WatchedTransitions {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        message::encode_repeated(TRANSITIONS, &self.transitions, buffer);
        encoding::bytes::encode_repeated(TRANSITIONS, &self.encoded, buffer);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            TRANSITIONS => {
                message::merge_repeated(wire_type, &mut self.transitions, buffer, context)
            }
            _ => skip_field(wire_type, tag, buffer, context),
        }
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len_repeated(TRANSITIONS, &self.transitions)
            + encoding::bytes::encoded_len_repeated(TRANSITIONS, &self.encoded)
    }

    fn clear(&mut self) {
        *self = WatchedTransitions::default();
    }
}

/// Decodes a transition that was encoded here. A document that exceeds the limits, as SQL or an older
/// version may have stored it, cannot be decoded, and is left out.
fn decode(encoded: Bytes) -> Option<FsmTransition> {
    let mut transition = FsmTransition::decode(encoded).ok()?;
    let document = &mut transition.transition_data;
    if document.take_if(|it| it.has_fault()).is_some() {
        transition.omitted_fields.push("transition_data".to_owned());
    }
    Some(transition)
}

impl Parts for WatchedTransitions {
    const IS_RESPONSE: bool = false;

    fn visit_parts(&mut self, visit: &mut dyn FnMut(Part<'_>)) {
        // Rare: only a message with a large document has to be cut.
        let encoded = self.encoded.drain(..);
        self.transitions.extend(encoded.filter_map(decode));
        for transition in &mut self.transitions {
            transition.visit_parts(visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;

    #[test]
    fn a_document_that_cannot_be_decoded_is_named_as_left_out() {
        let encoded = [10, 2 * 1024 * 1024].map(|length| {
            let text = Value::String("x".repeat(length));
            let transition = FsmTransition {
                transition_data: Some(Map::from_iter([("a".to_owned(), text)]).into()),
                ..FsmTransition::default()
            };
            transition.encode_to_vec().into()
        });
        let mut message = WatchedTransitions::of_encoded(encoded.to_vec());
        message.visit_parts(&mut |_| {});
        let [small, large] = &*message.transitions else {
            panic!("{} transitions", message.transitions.len());
        };
        assert!(small.transition_data.is_some() && small.omitted_fields.is_empty());
        assert_eq!(large.transition_data, None);
        assert_eq!(large.omitted_fields, ["transition_data"]);
    }
}
