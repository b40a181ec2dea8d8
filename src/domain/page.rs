//! Keyset paging: a page token holds the position of the last row of the previous page.
//!
//! A token is bound to its query by a digest of the filters, so that a client cannot use
//! it with other filters by mistake. A signature over the digest and the position tells a
//! damaged or invented token. The key of the signature is in the database, so tokens are valid
//! on every replica and after a restart. A token is not secret: its position is readable.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use prost::Message;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::{digest::RequestDigest, page_token_key::PageTokenKey, time};

/// Default number of rows of a page.
pub const DEFAULT_SIZE: i32 = 100;

/// Maximum size of the rows of a page, in bytes as protobuf; a larger page ends early. A
/// gRPC client accepts 4 MiB by default. A larger row gets a page of its own, without the
/// documents that do not fit into a response.
pub const MAX_BYTES: usize = 2 * 1024 * 1024;

/// Size of a row without its namespace, documents and texts, in bytes: its ids, names and times.
pub const ROW_BYTES: usize = 400;

/// The position of a row in a list, which a page token holds.
pub trait Position: Sized {
    /// Converts the position to the cursor of a token.
    fn to_cursor(self) -> Cursor;
    /// Reads the position from the cursor of a token; `None` if the cursor is invalid.
    fn from_cursor(cursor: &Cursor) -> Option<Self>;
}

/// A row of a paged list.
pub trait PageRow {
    /// The values that the list is ordered by.
    type Position: Position;

    /// Returns the position of the row.
    fn position(&self) -> Self::Position;

    /// Returns the approximate size of the row in a response, in bytes.
    fn size(&self) -> usize;
}

/// The position in a list that is ordered by a time, then by an id.
pub type TimePosition = (DateTime<Utc>, Uuid);

/// The position in a list that is ordered by a time, then by a name.
pub type NamedTimePosition = (DateTime<Utc>, String);

/// The rule that an invalid token breaks, and what to do.
const INVALID_TOKEN: &str = "must be a next_page_token that this service returned for the same \
                             RPC, namespace and filters; leave it unset to begin the list again";

/// The content of a page token.
#[derive(Clone, PartialEq, Message)]
pub struct Cursor {
    /// The digest of the filters.
    #[prost(bytes = "vec", tag = "1")]
    filters: Vec<u8>,
    /// The number that the list is ordered by first: microseconds since 1970, or an order.
    #[prost(sint64, tag = "2")]
    number: i64,
    /// The id or the name that orders rows with the same number.
    #[prost(bytes = "vec", tag = "3")]
    id: Vec<u8>,
    /// The signature of the other fields, encoded without it.
    #[prost(bytes = "vec", tag = "4")]
    signature: Vec<u8>,
}

impl Cursor {
    fn new(number: i64, id: Vec<u8>) -> Self {
        Cursor {
            number,
            id,
            ..Cursor::default()
        }
    }

    /// Returns the number as a time that PostgreSQL can store.
    fn time(&self) -> Option<DateTime<Utc>> {
        let time = DateTime::from_timestamp_micros(self.number);
        time.filter(|time| time::is_storable(*time))
    }
}

/// For lists that are ordered by a time.
impl Position for TimePosition {
    fn to_cursor(self) -> Cursor {
        Cursor::new(self.0.timestamp_micros(), self.1.into())
    }

    fn from_cursor(cursor: &Cursor) -> Option<Self> {
        Some((cursor.time()?, Uuid::from_slice(&cursor.id).ok()?))
    }
}

/// For lists that are ordered by a time and a name.
impl Position for NamedTimePosition {
    fn to_cursor(self) -> Cursor {
        Cursor::new(self.0.timestamp_micros(), self.1.into_bytes())
    }

    fn from_cursor(cursor: &Cursor) -> Option<Self> {
        Some((cursor.time()?, String::from_cursor(cursor)?))
    }
}

/// For lists that are ordered by a name. Names are not empty, so a token that lost its
/// name is invalid and does not restart the list.
impl Position for String {
    fn to_cursor(self) -> Cursor {
        Cursor::new(0, self.into_bytes())
    }

    fn from_cursor(cursor: &Cursor) -> Option<Self> {
        let name = String::from_utf8(cursor.id.clone()).ok()?;
        (!name.is_empty() && !name.contains('\0')).then_some(name)
    }
}

/// For lists that are ordered by a number, such as `step_order`.
impl Position for (i32, Uuid) {
    fn to_cursor(self) -> Cursor {
        Cursor::new(self.0.into(), self.1.into())
    }

    fn from_cursor(cursor: &Cursor) -> Option<Self> {
        let order = i32::try_from(cursor.number).ok()?;
        Some((order, Uuid::from_slice(&cursor.id).ok()?))
    }
}

/// The page of a list that a request asks for.
#[derive(Debug, Clone)]
pub struct PageRequest<P> {
    /// Maximum number of rows.
    pub size: i64,
    /// The position after which the page starts; `None` for the first page.
    pub after: Option<P>,
    filters: RequestDigest,
    key: PageTokenKey,
}

impl<P: Position> PageRequest<P> {
    /// Makes the request of a page of at most `size` rows that starts at `token`; an empty
    /// token asks for the first page.
    ///
    /// # Errors
    /// If the token is malformed, belongs to another query, or another key signed it.
    pub fn new(
        size: i64,
        token: &str,
        filters: RequestDigest,
        key: PageTokenKey,
    ) -> Result<Self, &'static str> {
        let first = Self::first(size, filters, key);
        if token.is_empty() {
            return Ok(first);
        }
        let after = read_token(token, &filters, &key).ok_or(INVALID_TOKEN)?;
        Ok(PageRequest {
            after: Some(after),
            ..first
        })
    }

    /// Makes the request of the first page.
    #[must_use]
    pub fn first(size: i64, filters: RequestDigest, key: PageTokenKey) -> Self {
        PageRequest {
            size,
            after: None,
            filters,
            key,
        }
    }

    /// Returns the token of the page that starts after `last`.
    pub fn token_after(&self, last: P) -> String {
        token(&self.filters, &self.key, last.to_cursor())
    }
}

fn token(filters: &RequestDigest, key: &PageTokenKey, position: Cursor) -> String {
    let mut cursor = Cursor {
        filters: filters.as_bytes().to_vec(),
        ..position
    };
    cursor.signature = key.sign(&cursor.encode_to_vec());
    URL_SAFE_NO_PAD.encode(cursor.encode_to_vec())
}

/// Reads a token. It is valid only if the service makes the same text for its position. The
/// comparison takes the same time for every wrong signature, so that it helps no guessing.
fn read_token<P: Position>(text: &str, filters: &RequestDigest, key: &PageTokenKey) -> Option<P> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let cursor = Cursor::decode(bytes.as_slice()).ok()?;
    let position = Cursor::new(cursor.number, cursor.id);
    let expected = token(filters, key, position.clone());
    bool::from(expected.as_bytes().ct_eq(text.as_bytes()))
        .then(|| P::from_cursor(&position))
        .flatten()
}

/// A page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// The token of the next page; empty at the end of the list.
    pub next_page_token: String,
    /// Whether the page ended early because of [`MAX_BYTES`].
    pub is_cut: bool,
}

/// Drops rows from the end until the others fit into `max_bytes`, but keeps the first row
/// in any case. Returns the number of bytes that are left.
pub fn truncate_to_bytes<T: PageRow>(rows: &mut Vec<T>, max_bytes: usize) -> usize {
    let mut left = max_bytes;
    let fitting = rows
        .iter()
        .take_while(|row| match left.checked_sub(row.size()) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        });
    let fitting = fitting.count().max(1);
    rows.truncate(fitting);
    left
}
