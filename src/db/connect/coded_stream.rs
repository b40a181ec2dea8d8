//! Puts the SQLSTATE of each error of PostgreSQL into its message, as psql does after `\set VERBOSITY verbose`:
//! `57014: canceling statement due to statement timeout`.
//!
//! diesel-async passes on the message of an error, but not its SQLSTATE. A program cannot rely on the
//! message, because its language depends on `lc_messages`. [`sql_state`](crate::db::sql_state) reads
//! the code from the message. Once diesel-async passes it on (diesel-rs/diesel#5232), remove both.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use prost::bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The type of an ErrorResponse, and of two of its fields. Source:
/// <https://www.postgresql.org/docs/current/protocol-error-fields.html>.
const ERROR: u8 = b'E';
const CODE: u8 = b'C';
const MESSAGE: u8 = b'M';

/// The bytes of the type and the length of a message. The length counts itself, but not the type.
const HEADER_BYTES: usize = 5;

/// A longer error is passed on without its code, which bounds the memory that a peer can occupy.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// The number of bytes read at once to complete an error.
const READ_BYTES: usize = 1024;

/// A stream of PostgreSQL's protocol, from the startup message on.
pub(super) struct CodedStream<S> {
    inner: S,
    frames: Frames,
    /// Bytes received from the start of an incomplete error on.
    held: BytesMut,
    /// Complete messages that the caller has not read yet.
    ready: BytesMut,
}

impl<S> CodedStream<S> {
    pub(super) fn new(inner: S) -> Self {
        CodedStream {
            inner,
            frames: Frames::default(),
            held: BytesMut::new(),
            ready: BytesMut::new(),
        }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Moves all complete messages from `held` to `ready`.
    fn release(&mut self) {
        loop {
            let passed = self.frames.pass(&self.held);
            self.ready.put(self.held.split_to(passed));
            let Some(length) = message_length(&self.held) else {
                return;
            };
            if length > MAX_ERROR_BYTES {
                self.frames.left = length;
            } else if length <= self.held.len() {
                let error = self.held.split_to(length);
                self.ready.put(with_code(&error).unwrap_or(error));
            } else {
                return;
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CodedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            this.release();
            if !this.ready.is_empty() {
                break;
            }
            if this.held.is_empty() {
                // Everything but errors is read into the buffer of the caller.
                let before = buffer.filled().len();
                ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
                let received = buffer.filled().get(before..).unwrap_or_default();
                let passed = this.frames.pass(received);
                let held = received.get(passed..).unwrap_or_default();
                let is_end = received.is_empty();
                this.held.extend_from_slice(held);
                buffer.set_filled(before + passed);
                if passed > 0 || is_end {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut more = [0; READ_BYTES];
                let mut more = ReadBuf::new(&mut more);
                ready!(Pin::new(&mut this.inner).poll_read(context, &mut more))?;
                this.held.extend_from_slice(more.filled());
                if more.filled().is_empty() {
                    // The stream ends within an error.
                    this.ready = this.held.split();
                    break;
                }
            }
        }
        let length = this.ready.len().min(buffer.remaining());
        buffer.put_slice(&this.ready.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CodedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Follows the messages that pass.
#[derive(Default)]
struct Frames {
    /// The received part of an incomplete header.
    header: Vec<u8>,
    /// How many bytes of the message are still to pass.
    left: usize,
}

impl Frames {
    /// Returns how many bytes pass before an error begins.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if self.left > 0 {
                let skipped = self.left.min(rest.len());
                rest.advance(skipped);
                self.left -= skipped;
            } else if self.header.is_empty() && *first == ERROR {
                break;
            } else {
                self.header.push(*first);
                rest.advance(1);
                if let Some(length) = message_length(&self.header) {
                    self.left = length - HEADER_BYTES;
                    self.header.clear();
                }
            }
        }
        bytes.len() - rest.len()
    }
}

/// Returns the bytes of the message that begins here, with its header; `None` while that is incomplete.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(1..HEADER_BYTES)?.try_into().ok()?;
    let length = u32::from_be_bytes(length) as usize;
    Some(HEADER_BYTES.max(1 + length))
}

/// Returns an error with its SQLSTATE in its message; `None` if it is malformed.
fn with_code(error: &[u8]) -> Option<BytesMut> {
    let mut fields = Vec::new();
    let mut rest = error.get(HEADER_BYTES..)?;
    while let [kind, text @ ..] = rest
        && *kind != 0
    {
        let end = text.iter().position(|byte| *byte == 0)?;
        let (text, after) = text.split_at_checked(end)?;
        fields.push((*kind, text));
        rest = after.get(1..)?;
    }
    let (_, code) = fields.iter().find(|(kind, _)| *kind == CODE)?;
    let mut coded = BytesMut::with_capacity(error.len() + code.len() + 2);
    for (kind, text) in &fields {
        coded.put_u8(*kind);
        if *kind == MESSAGE {
            coded.put_slice(code);
            coded.put_slice(b": ");
        }
        coded.put_slice(text);
        coded.put_u8(0);
    }
    coded.put_u8(0);
    let mut message = BytesMut::with_capacity(HEADER_BYTES + coded.len());
    message.put_u8(ERROR);
    message.put_u32(u32::try_from(coded.len() + 4).ok()?);
    message.put(coded);
    Some(message)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    /// Reads everything, of which each read gets only some bytes, in pieces of `limit`.
    async fn read(stream: &[u8], piece: usize, limit: usize) -> Vec<u8> {
        let mut mock = tokio_test(stream, piece);
        let mut all = Vec::new();
        loop {
            let mut buffer = vec![0; limit];
            match mock.read(&mut buffer).await.unwrap() {
                0 => return all,
                length => all.extend_from_slice(&buffer[..length]),
            }
        }
    }

    fn tokio_test(stream: &[u8], piece: usize) -> CodedStream<impl AsyncRead + Unpin + use<>> {
        let pieces: Vec<_> = stream.chunks(piece).map(<[u8]>::to_vec).collect();
        let pieces = pieces.into_iter().map(Ok::<_, io::Error>);
        let pieces = pieces.map(|it| it.map(io::Cursor::new));
        let stream = futures_util::stream::iter(pieces);
        CodedStream::new(tokio_util::io::StreamReader::new(stream))
    }

    #[tokio::test]
    async fn errors_get_their_code_wherever_the_stream_is_cut() {
        let row = message(b'D', b"EEEE\0\0\0\x05E");
        let error = message(b'E', b"SFEHLER\0C53100\0Mvoll\0Hmehr Platz\0\0");
        let coded = message(b'E', b"SFEHLER\0C53100\0M53100: voll\0Hmehr Platz\0\0");
        let end = message(b'Z', b"I");
        let sent = [&*row, &error, &error, &row, &end, &error].concat();
        let expected = [&*row, &coded, &coded, &row, &end, &coded].concat();
        for piece in 1..sent.len() {
            for limit in [1, 3, 7, 8192] {
                assert_eq!(read(&sent, piece, limit).await, expected, "{piece} {limit}");
            }
        }
    }

    #[tokio::test]
    async fn a_malformed_or_long_error_passes_unchanged() {
        let row = message(b'D', b"E");
        let long = [
            b"C53100\0M",
            "m".repeat(MAX_ERROR_BYTES).as_bytes(),
            b"\0\0",
        ]
        .concat();
        for error in [
            message(b'E', &long),
            message(b'E', b"C53100\0Mwithout an end"),
            message(b'E', b"Mno code\0\0"),
            message(b'E', b""),
            b"E\0\0\0\0".to_vec(),
            // From before version 3 of the protocol.
            b"Ecould not fork new process for connection\n\0".to_vec(),
        ] {
            let sent = [&*error, &row].concat();
            assert_eq!(read(&sent, 100, 50).await, sent);
        }
        assert_eq!(read(b"E\0\0\0\x20C53", 4, 4).await, b"E\0\0\0\x20C53");
    }
}
