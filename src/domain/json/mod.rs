//! JSON documents: `google.protobuf.Struct` on the wire, JSONB in the database.
//!
//! [`Struct`] replaces prost's type of that name. prost rejects a message that nests deeper
//! than 100 levels, which is about 33 levels of JSON, with a bare decoding error. Ours keeps
//! the fault of the document, so that the error can name the field.

mod object;
mod pointer;
mod proto_struct;
mod wire;

use std::fmt;

pub use self::{object::JsonObject, pointer::Pointer, proto_struct::Struct};
use crate::util::counted::counted;

/// Maximum depth of a document, in levels; the document itself is level 1. It is deep
/// enough for anything that people write, and shallow enough for recursion.
pub const MAX_DEPTH: usize = 64;

/// Maximum size of a document, in bytes of JSON text. PostgreSQL accepts 255 MiB, but every
/// reader of the row would have to accept it, too.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Maximum size of a document, in bytes as protobuf, where a small number takes eleven bytes
/// instead of one. gRPC clients accept responses of 4 MiB by default, and a document has to
/// fit into one.
pub const MAX_WIRE_BYTES: usize = 3 * 1024 * 1024;

/// The limits of a document. The default has the maximums.
#[derive(Debug, Clone, Copy)]
pub struct JsonLimits {
    /// Maximum depth, in levels.
    pub depth: usize,
    /// Maximum size, in bytes of JSON text.
    pub text_bytes: usize,
    /// Maximum size, in bytes as protobuf.
    pub wire_bytes: usize,
}

impl Default for JsonLimits {
    fn default() -> Self {
        JsonLimits {
            depth: MAX_DEPTH,
            text_bytes: MAX_BYTES,
            wire_bytes: MAX_WIRE_BYTES,
        }
    }
}

/// The fault of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonError {
    /// It nests deeper than `max` levels.
    TooDeep {
        /// The limit.
        max: usize,
        /// The value that is too deep.
        at: Pointer,
    },
    /// It has more bytes of JSON text than `max`.
    TooLarge {
        /// The limit.
        max: usize,
        /// Its size.
        size: Size,
    },
    /// It has more bytes as protobuf than `max`.
    TooLargeOnWire {
        /// The limit.
        max: usize,
        /// Its size, in bytes.
        size: usize,
    },
    /// It has a NaN or an infinity, which JSON does not have.
    NotFinite(Pointer),
    /// It has a NUL character in a string or a key, which JSONB cannot store.
    Nul(Pointer),
    /// The stored document is damaged, so that a patch cannot be merged into it.
    Unreadable,
}

/// The size of a document, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Its size.
    Exactly(usize),
    /// A lower bound. A document over the limit is not converted to text to count its bytes.
    AtLeast(usize),
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Exactly(bytes) => write!(f, "{bytes}"),
            Size::AtLeast(bytes) => write!(f, "at least {bytes}"),
        }
    }
}

impl JsonError {
    /// Returns the error with the limits that are in force instead of the maximums.
    fn with_limits(self, limits: JsonLimits) -> Self {
        match self {
            JsonError::TooDeep { at, .. } => JsonError::TooDeep {
                max: limits.depth,
                at,
            },
            JsonError::TooLarge { size, .. } => JsonError::TooLarge {
                max: limits.text_bytes,
                size,
            },
            other => other,
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::TooDeep { max, at } => {
                let levels = counted(*max, "level", "levels");
                write!(
                    f,
                    "must not nest deeper than {levels}; the value at {at} does"
                )
            }
            JsonError::TooLarge { max, size } => {
                write!(f, "must be at most {max} bytes of JSON text, got {size}")
            }
            JsonError::TooLargeOnWire { max, size } => {
                write!(f, "must be at most {max} bytes as protobuf, got {size}")
            }
            JsonError::NotFinite(at) => {
                write!(
                    f,
                    "must not contain NaN or an infinite number; the value at {at} is one"
                )
            }
            JsonError::Nul(at) => {
                write!(
                    f,
                    "must not contain a NUL character; the key or value at {at} has one"
                )
            }
            JsonError::Unreadable => {
                f.write_str("cannot be merged, because the stored document is unreadable")
            }
        }
    }
}
