//! Values and rules that all groups share. Nothing here depends on tonic or does I/O.

pub mod digest;
pub mod error;
pub mod id;
pub mod journal;
pub mod json;
pub mod limits;
pub mod namespace;
pub mod page;
pub mod page_token_key;
pub mod position;
pub mod quota;
pub mod role;
pub(crate) mod text_enum;
pub mod time;
pub mod violation;
pub mod write_outcome;
