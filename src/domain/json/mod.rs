//! JSON documents: `google.protobuf.Struct` on the wire, JSONB in the database.
//!
//! [`Struct`] replaces prost's type of that name. prost rejects a message that nests deeper
//! than 100 levels, which is about 33 levels of JSON, with a bare decoding error. Ours keeps
//! the fault of the document, so that the error can name the field.

mod object;
mod proto_struct;
mod wire;

use std::fmt;

pub use self::{object::JsonObject, proto_struct::Struct};

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

/// The fault of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonError {
    /// It nests deeper than [`MAX_DEPTH`].
    TooDeep,
    /// It has more bytes of JSON text than [`MAX_BYTES`].
    TooLarge,
    /// It has more bytes as protobuf than [`MAX_WIRE_BYTES`].
    TooLargeOnWire,
    /// It has a NaN or an infinity, which JSON does not have.
    NotFinite,
    /// It has a NUL character in a string or a key, which JSONB cannot store.
    Nul,
    /// The stored document is damaged, so that a patch cannot be merged into it.
    Unreadable,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::TooDeep => write!(f, "must not nest deeper than {MAX_DEPTH} levels"),
            JsonError::TooLarge => write!(f, "must be at most {MAX_BYTES} bytes of JSON text"),
            JsonError::TooLargeOnWire => {
                write!(f, "must be at most {MAX_WIRE_BYTES} bytes as protobuf")
            }
            JsonError::NotFinite => f.write_str("must not contain NaN or an infinite number"),
            JsonError::Nul => f.write_str("must not contain a NUL character"),
            JsonError::Unreadable => {
                f.write_str("cannot be merged, because the stored document is unreadable")
            }
        }
    }
}
