//! The protobuf codec of the services and clients.
//!
//! It differs from tonic's in three points:
//! - A malformed message is INVALID_ARGUMENT, because the caller has to fix it, and not INTERNAL.
//! - A second message is INVALID_ARGUMENT. tonic would drop it, and do the work of the first one.
//!   Every RPC of the contract is unary. An RPC with a stream needs another decoder.
//! - A response is cut to the size that clients accept, see [`response_size`].

use std::{marker::PhantomData, slice};

use prost::Message;
use tonic::{
    Status,
    codec::{Codec as TonicCodec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::{limits, response_size};
use crate::{
    domain::{
        error::{Error, ProtocolError},
        limits::MAX_RESPONSE,
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
    U: Message + Default + Send + 'static,
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

/// Decodes the only message of a request or of a response.
pub struct MessageDecoder<U> {
    is_done: bool,
    message: PhantomData<U>,
}

impl<U: Message + Default> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        if self.is_done {
            return Err(Error::from(ProtocolError::TooManyMessages).into());
        }
        self.is_done = true;
        U::decode(buffer)
            .map(Some)
            .map_err(|error| Error::Malformed(error).into())
    }
}
