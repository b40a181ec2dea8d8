//! Paging by keyset: a page token says after which row the next page begins.
//!
//! A token is bound to its query by a digest of the filters, so that it can't be
//! used with others by mistake. It is no secret and no permission: whoever makes
//! one up only begins their own list elsewhere.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use prost::Message;
use uuid::Uuid;

use super::{digest::RequestDigest, time};
use crate::proto::PagedRequest;

/// How many rows a page has if the request does not say.
pub const DEFAULT_SIZE: i32 = 100;

/// How many bytes of rows a page has, as protobuf, before it ends early. A gRPC
/// client takes 4 MiB by default; a row that is larger than this stands alone.
pub const MAX_BYTES: usize = 2 * 1024 * 1024;

/// What a row takes beside its documents and texts, in bytes: ids, names and times.
pub const ROW_BYTES: usize = 400;

/// Where in a list a row stands.
pub trait Position: Sized {
    /// Writes the position into a token.
    fn to_cursor(self) -> Cursor;
    /// Reads the position from a token.
    fn from_cursor(cursor: &Cursor) -> Option<Self>;
}

/// A row that can stand in a list.
pub trait PageRow {
    /// By what rows are ordered.
    type Position: Position;

    /// Where it stands.
    fn position(&self) -> Self::Position;

    /// About how many bytes it takes in an answer.
    fn size(&self) -> usize;
}

/// Where a row stands among rows of its time: by the time, then by the id.
pub type TimePosition = (DateTime<Utc>, Uuid);

/// The content of a page token.
#[derive(Clone, PartialEq, Message)]
pub struct Cursor {
    /// Digest of the filters.
    #[prost(bytes = "vec", tag = "1")]
    filters: Vec<u8>,
    /// The number that the rows are ordered by: microseconds since 1970, or an order.
    #[prost(sint64, tag = "2")]
    number: i64,
    /// The id, or the name, that orders rows of the same number.
    #[prost(bytes = "vec", tag = "3")]
    id: Vec<u8>,
}

impl Cursor {
    fn new(number: i64, id: Uuid) -> Self {
        Cursor {
            filters: Vec::new(),
            number,
            id: id.as_bytes().to_vec(),
        }
    }
}

/// Rows that are ordered by a time.
impl Position for TimePosition {
    fn to_cursor(self) -> Cursor {
        Cursor::new(self.0.timestamp_micros(), self.1)
    }

    fn from_cursor(cursor: &Cursor) -> Option<Self> {
        let time = DateTime::from_timestamp_micros(cursor.number)
            .filter(|time| time::is_storable(*time))?;
        Some((time, Uuid::from_slice(&cursor.id).ok()?))
    }
}

/// Rows that are ordered by a name, which is never empty: a token that was cut off
/// before it does not begin the list anew.
impl Position for String {
    fn to_cursor(self) -> Cursor {
        Cursor {
            filters: Vec::new(),
            number: 0,
            id: self.into_bytes(),
        }
    }

    fn from_cursor(cursor: &Cursor) -> Option<Self> {
        let name = String::from_utf8(cursor.id.clone()).ok()?;
        (!name.is_empty() && !name.contains('\0')).then_some(name)
    }
}

/// Rows that are ordered by an order.
impl Position for (i32, Uuid) {
    fn to_cursor(self) -> Cursor {
        Cursor::new(self.0.into(), self.1)
    }

    fn from_cursor(cursor: &Cursor) -> Option<Self> {
        let order = i32::try_from(cursor.number).ok()?;
        Some((order, Uuid::from_slice(&cursor.id).ok()?))
    }
}

/// Which page of a list is asked for.
#[derive(Debug, Clone)]
pub struct PageRequest<P> {
    /// How many rows it has at most.
    pub size: i64,
    /// The row after which it begins; the first page has none.
    pub after: Option<P>,
    filters: RequestDigest,
}

impl<P: Position> PageRequest<P> {
    /// A page of at most `size` rows that begins where `token` says; an empty token
    /// is the first page.
    ///
    /// # Errors
    /// If the token is malformed or belongs to another query.
    pub fn new(size: i64, token: &str, filters: RequestDigest) -> Result<Self, &'static str> {
        if token.is_empty() {
            return Ok(Self::first(size, filters));
        }
        let after = read_token(token, filters);
        let after = after.ok_or("must be a next_page_token of this same query")?;
        Ok(PageRequest {
            size,
            after: Some(after),
            filters,
        })
    }

    /// The first page.
    #[must_use]
    pub fn first(size: i64, filters: RequestDigest) -> Self {
        PageRequest {
            size,
            after: None,
            filters,
        }
    }

    /// Writes the token of the page that begins after `last`.
    pub fn token_after(&self, last: P) -> String {
        token(&self.filters, last)
    }
}

/// Returns the token of the page that starts after `last` in the list that `query`, a
/// request without its paging fields, asks for.
pub fn token_for<R: PagedRequest>(query: &R, last: impl Position) -> String {
    token(&RequestDigest::of_query(R::RPC, query), last)
}

fn token(filters: &RequestDigest, last: impl Position) -> String {
    let cursor = Cursor {
        filters: filters.as_bytes().to_vec(),
        ..last.to_cursor()
    };
    URL_SAFE_NO_PAD.encode(cursor.encode_to_vec())
}

fn read_token<P: Position>(token: &str, filters: RequestDigest) -> Option<P> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let cursor = Cursor::decode(bytes.as_slice()).ok()?;
    (cursor.filters == filters.as_bytes())
        .then(|| P::from_cursor(&cursor))
        .flatten()
}

/// One page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// Its rows.
    pub rows: Vec<T>,
    /// The token of the next page; empty at the end.
    pub next_page_token: String,
    /// Whether it ended early because its rows are large.
    pub is_cut: bool,
}

/// Drops rows from the end until the first ones fit into so many bytes, but
/// never the first; answers how many bytes are left.
pub fn truncate_to_bytes<T: PageRow>(rows: &mut Vec<T>, room: usize) -> usize {
    let mut left = room;
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
