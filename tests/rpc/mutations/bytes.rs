//! Mutations of a request's encoding: of its bytes, and of its gRPC frame.

use fastrand::Rng;
use prost::bytes::Bytes;

/// Changes an encoded request. `other` is another request of the same RPC.
pub fn mutate(request: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = request.to_vec();
    for _ in 0..rng.usize(1..=2) {
        mutate_one(&mut bytes, other, rng);
    }
    bytes
}

fn mutate_one(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let at = rng.usize(0..=bytes.len());
    let end = rng.usize(at..=bytes.len());
    match rng.u32(0..13) {
        0 | 1 => change(bytes, rng, |byte, rng| byte ^ (1 << rng.u32(0..8))),
        2 => change(bytes, rng, |_, rng| {
            *rng.choice(&[0, 1, 0x7f, 0x80, 0xff]).unwrap()
        }),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..end)),
        5 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
        6 => {
            let noise: Vec<u8> = (0..rng.usize(1..16)).map(|_| rng.u8(..)).collect();
            bytes.splice(at..at, noise);
        }
        7 => {
            let from = rng.usize(0..=other.len());
            bytes.splice(at..end, other[from..].to_vec());
        }
        // Repeats every field.
        8 => bytes.extend_from_within(..),
        9 => bytes.extend(other),
        10 => bytes.extend(field(rng)),
        // Invalid UTF-8, if the position is in text.
        11 => drop(bytes.splice(at..end.min(at + 2), [0xc3, 0x28])),
        _ => bytes.extend(nested(rng)),
    }
}

fn change(bytes: &mut [u8], rng: &mut Rng, to: impl Fn(u8, &mut Rng) -> u8) {
    if let Some(at) = rng.choice(0..bytes.len()) {
        bytes[at] = to(bytes[at], rng);
    }
}

/// Returns a field that is unknown, has the wrong wire type, or is truncated.
fn field(rng: &mut Rng) -> Vec<u8> {
    let wire_type = rng.u8(0..8);
    let mut bytes = vec![rng.u8(0..16) << 3 | wire_type];
    match rng.u32(0..4) {
        // A varint that is too long.
        0 => bytes.extend([0xff; 11]),
        // A length beyond the end, one of which overflows an addition.
        1 => bytes.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        2 => bytes.extend([0xff, 0xff, 0xff, 0xff, 0x07]),
        _ => bytes.extend((0..rng.usize(0..12)).map(|_| rng.u8(..))),
    }
    bytes
}

/// Returns deeply nested unknown fields: groups, or messages in messages.
fn nested(rng: &mut Rng) -> Vec<u8> {
    let number = rng.u8(1..16);
    let levels = rng.usize(1..2000);
    if rng.bool() {
        return vec![number << 3 | 3; levels];
    }
    let mut bytes = Vec::new();
    for _ in 0..levels.min(300) {
        let mut outer = vec![number << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.extend(bytes);
        bytes = outer;
    }
    bytes
}

/// Returns a message in a valid frame.
pub fn whole(message: &[u8]) -> Bytes {
    framed(0, u32::try_from(message.len()).unwrap(), message).into()
}

fn framed(flag: u8, length: u32, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.extend(length.to_be_bytes());
    frame.extend(message);
    frame
}

/// Returns a message in a frame that is mostly valid, as the pieces of a body.
pub fn frame(message: &[u8], rng: &mut Rng) -> Vec<Bytes> {
    let length = u32::try_from(message.len()).unwrap();
    let framed = |flag, length| framed(flag, length, message);
    let mut frame = framed(0, length);
    match rng.u32(0..128) {
        0 => frame = framed(0, length.saturating_add(rng.u32(1..100))),
        1 => frame = framed(0, length.saturating_sub(rng.u32(1..100))),
        2 => frame = framed(0, u32::MAX),
        3 => frame = framed(0, 4 * 1024 * 1024 + rng.u32(0..=1)),
        4 => frame = framed(1, length),
        5 => frame = framed(rng.u8(2..), length),
        6 => frame.truncate(rng.usize(0..5)),
        7 => frame.truncate(rng.usize(0..=frame.len())),
        8 => frame.clear(),
        9 => frame.extend_from_within(..),
        10 => frame.extend((0..rng.usize(1..20)).map(|_| rng.u8(..))),
        11 => {
            let middle = rng.usize(0..=frame.len());
            let rest = frame.split_off(middle);
            return vec![frame.into(), rest.into()];
        }
        _ => {}
    }
    vec![frame.into()]
}
