//! The journal as it is stored, with which the watchers' rows are compared.

use std::collections::HashMap;

use bridgebook::domain::position::GivenPosition;
use diesel::{QueryableByName, sql_types};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::{
    Result,
    stage::Stage,
    watcher::{Seen, Wanted},
};

/// A row of the journal.
#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = sql_types::Text)]
    namespace: String,
    #[diesel(sql_type = sql_types::Uuid)]
    entity_id: Uuid,
    #[diesel(sql_type = sql_types::Uuid)]
    id: Uuid,
    #[diesel(sql_type = sql_types::BigInt)]
    xid: i64,
    #[diesel(sql_type = sql_types::BigInt)]
    seq: i64,
}

/// The rows of the watched namespaces after a position, in their order.
pub struct Journal {
    namespaces: HashMap<String, Vec<Row>>,
    /// What was expected of earlier watchers: many have the same namespace, filter and beginning.
    expected: HashMap<Wanted, Seen>,
}

impl Journal {
    /// Reads the rows that watchers have to receive.
    pub async fn load(stage: &Stage, database: &str, wanted: &[Wanted]) -> Result<Self> {
        let query = diesel::sql_query(
            "SELECT namespace, entity_id, id, xid::text::bigint AS xid, seq FROM fsm_transitions
              WHERE namespace COLLATE \"C\" = ANY($1) AND xid >= $2::text::xid8
              ORDER BY xid, seq",
        );
        let mut namespaces: Vec<_> = wanted.iter().map(|it| &*it.namespace).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let first = wanted.iter().map(|it| begin(&it.ready).0).min();
        let query = query.bind::<sql_types::Array<sql_types::Text>, _>(namespaces);
        let query = query.bind::<sql_types::BigInt, _>(first.unwrap_or_default());
        let mut connection = stage.connect(database).await?;
        let rows: Vec<Row> = query.load(&mut connection).await?;
        let mut journal = Journal {
            namespaces: HashMap::new(),
            expected: HashMap::new(),
        };
        for row in rows {
            let namespace = journal.namespaces.entry(row.namespace.clone());
            namespace.or_default().push(row);
        }
        Ok(journal)
    }

    /// Returns what a watcher has to receive.
    pub fn expected(&mut self, wanted: &Wanted) -> Seen {
        if let Some(seen) = self.expected.get(wanted) {
            return seen.clone();
        }
        let ready = begin(&wanted.ready);
        let mut seen = Seen::default();
        for row in self.namespaces.get(&wanted.namespace).into_iter().flatten() {
            let is_wanted = wanted.entity_id.is_none_or(|id| id == row.entity_id);
            if is_wanted && (row.xid, row.seq) > ready {
                seen.add(row.id);
            }
        }
        self.expected.insert(wanted.clone(), seen.clone());
        seen
    }
}

/// Returns the order of a position: its transaction, and its number.
fn begin(position: &[u8]) -> (i64, i64) {
    let text = std::str::from_utf8(position).unwrap_or_default();
    let position = GivenPosition::parse(text).map(|it| it.of_any());
    position.map_or((0, 0), |it| (it.xid_for_sql(), it.seq))
}
