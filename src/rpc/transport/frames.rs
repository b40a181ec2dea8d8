//! Finds the frames in the bytes of an HTTP/2 connection.
//!
//! h2 counts some kinds of frames that do no work, and does not say how many others it has read.

/// Length of the header of a frame: length, type, flags, stream (RFC 9113, section 4.1).
const HEADER: usize = 9;
/// Length of the fixed text with which a client begins (RFC 9113, section 3.4).
pub(super) const PREFACE: usize = 24;

/// The flag of DATA with padding, and the maximum of what the padding takes with its length.
const PADDED: u8 = 0x8;
const MAX_PADDING: u32 = 256;

/// The types of the frames with headers.
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
/// The flag of HEADERS and CONTINUATION that ends a block of headers.
const END_HEADERS: u8 = 0x4;

/// The block of headers that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderBlock {
    /// None has begun that is not complete.
    None,
    /// It is a single frame, which is not complete. h2 keeps its bytes.
    Frame,
    /// It has several frames. h2 keeps the headers of those that are complete.
    Frames,
}

/// The types of frames that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// HEADERS of a stream, which begin a call.
    Headers,
    /// DATA, with the number of bytes that its content has at least.
    Data(u32),
    /// RST_STREAM.
    Reset,
    /// Any other frame.
    Other,
}

/// Finds frames in bytes that arrive in pieces.
pub(super) struct Frames {
    /// The bytes before the next header.
    skip: usize,
    header: [u8; HEADER],
    /// The bytes of the header so far.
    filled: usize,
    block: HeaderBlock,
    /// The number of blocks that have begun.
    blocks: u64,
    /// Whether the present frame is the last one of the block.
    ends_block: bool,
}

impl Frames {
    /// Starts with bytes of which the first `skip` are no frame.
    pub(super) fn after(skip: usize) -> Self {
        Frames {
            skip,
            header: [0; HEADER],
            filled: 0,
            block: HeaderBlock::None,
            blocks: 0,
            ends_block: false,
        }
    }

    /// Reads the next piece. Calls `found` with the kind and the stream of each frame whose header
    /// is complete.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut found: impl FnMut(Kind, u32)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.split_at(skipped).1;
            self.end_block();
            for byte in bytes.iter().take(HEADER - self.filled) {
                if let Some(slot) = self.header.get_mut(self.filled) {
                    *slot = *byte;
                }
                self.filled += 1;
                bytes = bytes.split_at(1).1;
            }
            if self.filled == HEADER {
                self.filled = 0;
                let [a, b, c, kind, flags, stream @ ..] = self.header;
                let length = u32::from_be_bytes([0, a, b, c]);
                self.skip = usize::try_from(length).unwrap_or(usize::MAX);
                // The first bit of the stream is reserved.
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                self.begin_block(kind, flags);
                self.end_block();
                found(kind_of(kind, flags, length), stream);
            }
        }
    }

    fn begin_block(&mut self, kind: u8, flags: u8) {
        if matches!(kind, HEADERS | CONTINUATION) {
            self.ends_block = flags & END_HEADERS != 0;
            self.blocks += u64::from(kind == HEADERS);
            self.block = match kind {
                HEADERS if self.ends_block => HeaderBlock::Frame,
                _ => HeaderBlock::Frames,
            };
        }
    }

    fn end_block(&mut self) {
        if self.ends_block && self.skip == 0 {
            self.block = HeaderBlock::None;
        }
    }

    /// Returns the block of headers that is not complete.
    pub(super) fn header_block(&self) -> HeaderBlock {
        self.block
    }

    /// Returns the number of blocks of headers that have begun.
    pub(super) fn header_blocks(&self) -> u64 {
        self.blocks
    }

    /// Returns whether the bytes so far end with a frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }
}

fn kind_of(kind: u8, flags: u8, length: u32) -> Kind {
    match kind {
        0x0 if flags & PADDED != 0 => Kind::Data(length.saturating_sub(MAX_PADDING)),
        0x0 => Kind::Data(length),
        HEADERS => Kind::Headers,
        0x3 => Kind::Reset,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            bytes.extend([0, 0, u8::try_from(payload.len()).unwrap(), kind, flags]);
            bytes.extend([0x80, 0, 0, stream]);
            bytes.extend(payload);
        };
        frame(4, 0, 0, &[]);
        frame(1, 4, 3, b"headers");
        frame(0, 0, 3, b"data");
        frame(0, 1, 3, &[]);
        frame(0, 0, 3, &[]);
        frame(0, 8, 3, &[0; 200]);
        frame(3, 0, 3, &[0; 4]);
        frame(99, 0, 0, &[1; 200]);
        let expected = [
            (Kind::Other, 0),
            (Kind::Headers, 3),
            (Kind::Data(4), 3),
            (Kind::Data(0), 3),
            (Kind::Data(0), 3),
            (Kind::Data(0), 3),
            (Kind::Reset, 3),
            (Kind::Other, 0),
        ];
        for size in [1, 2, 9, 10, 24, 33, bytes.len()] {
            let mut frames = Frames::after(PREFACE);
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                frames.read(piece, |kind, stream| found.push((kind, stream)));
            }
            assert_eq!(found, expected, "pieces of {size}");
            assert!(frames.is_between_frames());
        }
    }

    #[test]
    fn a_block_of_headers_ends_with_its_last_byte() {
        let head = |length: u8, kind: u8, flags: u8| [0, 0, length, kind, flags, 0, 0, 0, 1];
        let mut frames = Frames::after(0);
        let mut read = |bytes: &[u8]| {
            frames.read(bytes, |_, _| {});
            frames.header_block()
        };
        assert_eq!(read(&head(2, 0, 0)[..8]), HeaderBlock::None);
        assert_eq!(read(&[1, 0, 0]), HeaderBlock::None);
        assert_eq!(read(&head(2, HEADERS, END_HEADERS)), HeaderBlock::Frame);
        assert_eq!(read(&[0]), HeaderBlock::Frame);
        assert_eq!(read(&[0]), HeaderBlock::None);
        assert_eq!(read(&head(0, HEADERS, END_HEADERS)), HeaderBlock::None);
        assert_eq!(read(&head(1, HEADERS, 0)), HeaderBlock::Frames);
        assert_eq!(read(&[0]), HeaderBlock::Frames);
        assert_eq!(read(&head(0, CONTINUATION, 0)), HeaderBlock::Frames);
        let last = head(1, CONTINUATION, END_HEADERS);
        assert_eq!(read(&last), HeaderBlock::Frames);
        assert_eq!(read(&[0]), HeaderBlock::None);
    }
}
