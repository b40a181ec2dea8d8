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

impl Parts for WatchedTransitions {
    const IS_RESPONSE: bool = false;

    fn visit_parts(&mut self, visit: &mut dyn FnMut(Part<'_>)) {
        // Rare: only a message with a large document has to be cut. What was encoded here can be decoded.
        let encoded = self.encoded.drain(..);
        let decoded = encoded.filter_map(|it| FsmTransition::decode(it).ok());
        self.transitions.extend(decoded);
        for transition in &mut self.transitions {
            transition.visit_parts(visit);
        }
    }
}
