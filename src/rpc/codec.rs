//! The protobuf codec of the services and clients.
//!
//! It differs from tonic's in four points:
//! - A malformed message is INVALID_ARGUMENT, because the caller has to fix it, and not INTERNAL.
//! - A second request message is INVALID_ARGUMENT. tonic would drop it, and do the work of the first
//!   one. No RPC of the contract takes a stream of requests.
//! - A list with more items than any RPC accepts is INVALID_ARGUMENT before it is decoded. Its items
//!   may be empty: two million of them fit into a message, and take hundreds of megabytes decoded.
//! - A response is cut to the size that clients accept, see [`response_size`].

use std::{marker::PhantomData, slice};

use prost::{
    bytes::Buf,
    encoding::{DecodeContext, WireType, decode_key, skip_field},
};
use tonic::{
    Status,
    codec::{Codec as TonicCodec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::{limits, response_size};
use crate::{
    domain::{
        error::{Error, ProtocolError},
        limits::{MAX_BATCH, MAX_RESPONSE},
    },
    proto::Parts,
};

/// The codec that `build.rs` sets for every generated service and client.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> TonicCodec for Codec<T, U>
where
    T: Parts + Send + 'static,
    U: Parts + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder {
            is_done: false,
            message: PhantomData,
        }
    }
}

/// Encodes one message.
pub struct MessageEncoder<T>(PhantomData<T>);

impl<T: Parts> Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, mut message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let length = if T::IS_RESPONSE {
            let length = response_size::fit(slice::from_mut(&mut message), MAX_RESPONSE);
            // A handler may have reserved the bytes, and have encoded the message itself.
            if length > 0 {
                limits::reserve_response(length)?;
            }
            length
        } else {
            message.encoded_len()
        };
        buffer.reserve(length);
        message.encode_raw(buffer);
        Ok(())
    }
}

/// Decodes the only message of a request, or the messages of a response.
pub struct MessageDecoder<U> {
    is_done: bool,
    message: PhantomData<U>,
}

impl<U: Parts + Default> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        if self.is_done && !U::IS_RESPONSE {
            return Err(Error::from(ProtocolError::TooManyMessages).into());
        }
        self.is_done = true;
        // A message that is complete is one chunk.
        if let Some(field) = oversized_list::<U>(buffer.chunk()) {
            let rule = format!("has too many items (more than {MAX_BATCH})");
            return Err(Error::invalid_field(field, rule).into());
        }
        U::decode(buffer)
            .map(Some)
            .map_err(|error| Error::Malformed(error).into())
    }
}

/// Returns the name of the first list with more than [`MAX_BATCH`] items, the highest limit of all
/// lists. Reads the keys and lengths of the message's own fields, up to the item that is too many.
fn oversized_list<U: Parts>(mut message: &[u8]) -> Option<&'static str> {
    if U::LISTS.is_empty() {
        return None;
    }
    let mut counts = vec![0; U::LISTS.len()];
    while message.has_remaining() {
        // Malformed bytes fail when the message is decoded.
        let (number, wire_type) = decode_key(&mut message).ok()?;
        let rest = message;
        skip_field(wire_type, number, &mut message, DecodeContext::default()).ok()?;
        let mut lists = U::LISTS.iter().zip(&mut counts);
        if let Some((list, count)) = lists.find(|(list, _)| list.number == number) {
            *count += match list.is_packable && wire_type == WireType::LengthDelimited {
                true => packed_items(rest, message),
                false => 1,
            };
            if *count > MAX_BATCH {
                return Some(list.name);
            }
        }
    }
    None
}

/// Returns the number of items in a packed record. `record` begins with its length, and `rest` with
/// what follows it.
fn packed_items(record: &[u8], rest: &[u8]) -> usize {
    let bytes = record.iter().take(record.len() - rest.len());
    // The last byte of a varint has no continuation bit. One varint is the length.
    bytes.filter(|byte| **byte < 0x80).count().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::v1::{
        BatchRecordStepsRequest, FsmMove, ListWorkflowsRequest, NewStep, PutMachineRequest,
        StartWorkflowRequest,
    };

    #[test]
    fn a_list_is_counted_before_it_is_decoded() {
        let with_steps = |count| BatchRecordStepsRequest {
            namespace: "team-a".into(),
            steps: vec![NewStep::default(); count],
        };
        let found = |count| {
            let message = with_steps(count).encode_to_vec();
            oversized_list::<BatchRecordStepsRequest>(&message)
        };
        assert_eq!(found(MAX_BATCH), None);
        assert_eq!(found(MAX_BATCH + 1), Some("steps"));
        // The rest of the message is not read.
        let mut message = with_steps(MAX_BATCH + 1).encode_to_vec();
        message.extend([0xff; 20]);
        let found = oversized_list::<BatchRecordStepsRequest>(&message);
        assert_eq!(found, Some("steps"));
    }

    #[test]
    fn each_list_of_a_message_is_counted_by_itself() {
        let request = |ends, moves| {
            let request = PutMachineRequest {
                terminal_states: vec![String::new(); ends],
                moves: vec![FsmMove::default(); moves],
                ..PutMachineRequest::default()
            };
            oversized_list::<PutMachineRequest>(&request.encode_to_vec())
        };
        assert_eq!(request(MAX_BATCH, MAX_BATCH), None);
        assert_eq!(request(MAX_BATCH + 1, 0), Some("terminal_states"));
        assert_eq!(request(MAX_BATCH, MAX_BATCH + 1), Some("moves"));
    }

    #[test]
    fn the_items_of_a_packed_list_are_counted() {
        let found = |state, count| {
            let request = ListWorkflowsRequest {
                states: vec![state; count],
                ..ListWorkflowsRequest::default()
            };
            oversized_list::<ListWorkflowsRequest>(&request.encode_to_vec())
        };
        // An unknown number may take ten bytes.
        for state in [0, 1, i32::MAX, i32::MIN] {
            assert_eq!(found(state, MAX_BATCH), None);
            assert_eq!(found(state, MAX_BATCH + 1), Some("states"));
        }
        // Not packed: each item is a record of its own.
        let item = [4 << 3, 1];
        let found = oversized_list::<ListWorkflowsRequest>(&item.repeat(MAX_BATCH + 1));
        assert_eq!(found, Some("states"));
    }

    #[test]
    fn malformed_bytes_and_messages_without_lists_are_left_to_the_decoder() {
        assert_eq!(oversized_list::<BatchRecordStepsRequest>(&[0xff; 20]), None);
        let request = StartWorkflowRequest::default().encode_to_vec();
        assert_eq!(oversized_list::<StartWorkflowRequest>(&request), None);
    }
}
