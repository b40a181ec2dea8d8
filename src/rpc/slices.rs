//! Converts and encodes large responses in slices.
//!
//! A response of some MiB takes milliseconds. Other calls of the thread run after each millisecond, so
//! none of them waits that long. A message is the concatenation of its fields. So each slice is a
//! message with a few rows, and all of them together are the response.
//!
//! The handler returns an empty message, and the encoded one beside it. [`use_encoded`] puts the
//! encoded one into the body.

use std::mem;

use http_body::Frame;
use http_body_util::BodyExt;
use prost::bytes::{BufMut, Bytes, BytesMut};
use tonic::{Response, body::Body};

use super::{limits, response_size};
use crate::{
    domain::{error::Result, limits::MAX_RESPONSE},
    proto::Parts,
    util::pace::{Pace, SLICE_BYTES},
};

/// Size of the prefix of a gRPC message, in bytes: a flag and the length.
const PREFIX: usize = 5;

/// The gRPC message of a response, with its prefix.
#[derive(Clone)]
struct Encoded(Bytes);

/// Converts rows to messages that make up a response together: one for each slice. `size` estimates
/// the size of a row in bytes. `to_message` is told which slice is the first one.
pub async fn convert<T, M>(
    rows: Vec<T>,
    size: impl Fn(&T) -> usize,
    mut to_message: impl FnMut(Vec<T>, bool) -> M,
) -> Vec<M> {
    let (mut messages, mut slice, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut pace = Pace::default();
    for row in rows {
        if bytes >= SLICE_BYTES {
            messages.push(to_message(mem::take(&mut slice), messages.is_empty()));
            bytes = 0;
            pace.pause_if_due().await;
        }
        bytes += size(&row);
        slice.push(row);
    }
    messages.push(to_message(slice, messages.is_empty()));
    messages
}

/// Makes the response that messages make up together. A single one is encoded by the codec.
///
/// # Errors
/// [`Error::Overloaded`](crate::domain::error::Error::Overloaded) if the byte budget is exhausted and
/// the call only reads.
pub async fn respond<M: Parts + Default>(mut messages: Vec<M>) -> Result<Response<M>> {
    if messages.len() <= 1 {
        return Ok(Response::new(messages.pop().unwrap_or_default()));
    }
    let length = response_size::fit(&mut messages, MAX_RESPONSE);
    limits::reserve_response(length)?;
    let mut encoded = BytesMut::with_capacity(PREFIX + length);
    let is_compressed = false;
    encoded.put_u8(is_compressed.into());
    // It is at most MAX_RESPONSE.
    encoded.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    let mut pace = Pace::default();
    for message in messages {
        message.encode_raw(&mut encoded);
        drop(message);
        pace.pause_if_due().await;
    }
    let mut response = Response::new(M::default());
    response.extensions_mut().insert(Encoded(encoded.freeze()));
    Ok(response)
}

/// Puts the message that a handler has encoded into the body, in place of the empty one.
pub fn use_encoded(mut response: http::Response<Body>) -> http::Response<Body> {
    let Some(Encoded(encoded)) = response.extensions_mut().remove() else {
        return response;
    };
    let mut encoded = Some(encoded);
    let replace = move |frame: Frame<Bytes>| match encoded.take_if(|_| frame.is_data()) {
        Some(encoded) => Frame::data(encoded),
        None => frame,
    };
    response.map(|body| Body::new(body.map_frame(replace)))
}
