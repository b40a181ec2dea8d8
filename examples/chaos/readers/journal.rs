//! The journal as the database has it, and the part of it that a reader follows.

use std::fmt;

use bridgebook::{
    domain::position::{GivenPosition, Position},
    proto::v1::{WatchTransitionsRequest, watch_transitions_request::Begin},
};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::Result;

/// The part of the journal that a reader follows.
#[derive(Debug, Clone, Copy)]
pub struct Filter {
    /// A namespace, or a prefix and `*`.
    pub namespace: &'static str,
    /// A type of entities; empty for all.
    pub entity_type: &'static str,
}

impl Filter {
    /// Returns the request of a watch.
    pub fn request(self, begin: Begin) -> WatchTransitionsRequest {
        WatchTransitionsRequest {
            namespace: self.namespace.into(),
            entity_type: self.entity_type.into(),
            begin: Some(begin),
            ..WatchTransitionsRequest::default()
        }
    }

    fn includes(self, row: &Row) -> bool {
        let is_wanted = self.entity_type.is_empty() || self.entity_type == row.entity_type;
        is_wanted && self.is_over(row)
    }

    fn is_over(self, row: &Row) -> bool {
        match self.namespace.strip_suffix('*') {
            Some(prefix) => row.namespace.starts_with(prefix),
            None => row.namespace == self.namespace,
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entity_type {
            "" => f.write_str(self.namespace),
            entity_type => write!(f, "{}, {entity_type}", self.namespace),
        }
    }
}

/// A row of the journal.
#[derive(Debug, QueryableByName)]
pub struct Row {
    #[diesel(sql_type = Text)]
    namespace: String,
    #[diesel(sql_type = Text)]
    entity_type: String,
    #[diesel(sql_type = SqlUuid)]
    entity_id: Uuid,
    #[diesel(sql_type = Text)]
    to_state: String,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = BigInt)]
    xid: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
}

impl Row {
    /// Returns the place of the row.
    pub fn position(&self) -> Position {
        Position {
            xid: self.xid.unsigned_abs(),
            seq: self.seq,
            transition_id: self.id.into(),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = at(self.position());
        let (entity_type, entity_id) = (&self.entity_type, self.entity_id);
        write!(f, "{at}, {entity_type} {entity_id} to {}", self.to_state)
    }
}

/// Returns a place of the journal as its columns, to look it up.
pub fn at(position: Position) -> String {
    let Position {
        xid,
        seq,
        transition_id,
    } = position;
    format!("xid {xid} seq {seq} id {transition_id}")
}

/// Reads a position that the service returned. Text that is none is a place before all rows.
pub fn parse(position: &str) -> Position {
    GivenPosition::parse(position).map_or_else(Position::default, |it| it.of_any())
}

/// All rows of the journal.
#[derive(Debug)]
pub struct Journal(Vec<Row>);

impl Journal {
    /// Reads the journal, in its order.
    pub async fn read(url: &str) -> Result<Self> {
        let mut database = bridgebook::db::connect(&url.parse()?).await?;
        let query = diesel::sql_query(
            "SELECT namespace, entity_type, entity_id, to_state, id, xid::text::bigint AS xid, seq
               FROM fsm_transitions ORDER BY fsm_transitions.xid, seq",
        );
        Ok(Journal(query.load(&mut database).await?))
    }

    /// Returns the rows that a reader follows, up to a position.
    pub fn rows(&self, filter: Filter, through: Position) -> impl Iterator<Item = &Row> {
        let rows = self.0.iter();
        rows.filter(move |row| filter.includes(row) && row.position() <= through)
    }

    /// Returns the place of the last row, of any type, in the namespaces of a reader.
    pub fn end(&self, filter: Filter) -> Position {
        let last = self.0.iter().rfind(|row| filter.is_over(row));
        last.map_or_else(Position::default, Row::position)
    }
}
