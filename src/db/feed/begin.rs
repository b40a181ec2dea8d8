//! Finds where a reader begins.

use diesel::{
    QueryResult,
    sql_types::{BigInt, Bool, Nullable, Text, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{
    read::snapshot_bounds,
    scope::{Scope, walk_namespaces},
};
use crate::{
    db::{
        batch::statement::{batch_statement, index_of},
        journal::Xid,
        planner::{byte_order, lateral, left_lateral, left_lookup, same_namespace},
        schema::sql_types::Xid8,
    },
    domain::{
        id::{BridgeId, TransitionId},
        namespace::RESERVED_PREFIX,
        position::Position,
    },
};

batch_statement! {
    /// Reads the last row of each namespace below the horizon, the last one that retention removed, and
    /// whether the row is there that the reader, or a bridge, names.
    struct FindBegin<'a> {
        namespace: &'a str => Text,
        xid: Option<i64> => Nullable<BigInt>,
        seq: Option<i64> => Nullable<BigInt>,
        transition_id: Option<TransitionId> => Nullable<Uuid>,
        bridge_id: Option<BridgeId> => Nullable<Uuid>,
    }
    returns (
        BigInt,
        Text,
        BigInt,
        Nullable<(Xid8, BigInt, Uuid)>,
        Nullable<(Xid8, BigInt, Uuid)>,
        Bool,
        Nullable<(Xid8, BigInt, Uuid)>,
        Bool,
    );
    concat!(", ", snapshot_bounds!(), "
        SELECT item.ordinality, now.snapshot::text, now.xid_offset, last.xid, last.seq, last.id, floor.xid, floor.seq,
               floor.transition_id, b.bridge_id IS NOT NULL, wanted.xid, wanted.seq,
               wanted.transition_id, there.id IS NOT NULL
          FROM item CROSS JOIN now CROSS JOIN bounds",
        left_lookup!("journal_floors", "floor", "floor.namespace = item.namespace"),
        left_lateral!("last",
            "SELECT j.xid, j.seq, j.id FROM fsm_transitions j
              WHERE ", byte_order!("j.namespace"), " = item.namespace AND j.xid < bounds.horizon
              ORDER BY j.xid DESC, j.seq DESC LIMIT 1"),
        left_lookup!("bridge_states", "b",
            "b.bridge_id = item.bridge_id AND ", same_namespace!("b")),
        left_lateral!("wanted",
            "SELECT coalesce(item.xid::text::xid8, b.consumed_xid) AS xid,
                    coalesce(item.seq, b.consumed_seq) AS seq,
                    coalesce(item.transition_id, b.consumed_transition_id) AS transition_id"),
        left_lookup!("fsm_transitions", "there",
            "there.id = wanted.transition_id AND ", same_namespace!("there"), "
             AND there.xid = wanted.xid AND there.seq = wanted.seq"))
}

type Named = Option<(Xid, i64, TransitionId)>;
type Row = (i64, String, i64, Named, Named, bool, Named, bool);

fn position(named: Named) -> Option<Position> {
    let (xid, seq, transition_id) = named?;
    Some(Position {
        xid: xid.0,
        seq,
        transition_id,
    })
}

batch_statement! {
    /// Lists the namespaces with a prefix that have rows, or whose rows retention has removed.
    struct ListNamespaces<'a> { prefix: &'a str => Text, }
    returns Text;
    concat!("
        SELECT place.namespace
          FROM item", lateral!("place", walk_namespaces!("item.prefix"), "
            SELECT found.namespace FROM found WHERE starts_with(found.namespace, item.prefix)"), "
         UNION
        SELECT f.namespace
          FROM item JOIN journal_floors f ON starts_with(f.namespace, item.prefix)")
}

/// What a reader names to begin after.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// A position.
    pub after: Option<Position>,
    /// A bridge, for the position that it has consumed.
    pub bridge_id: Option<BridgeId>,
}

/// The journal of some namespaces, as a reader finds it.
#[derive(Debug, Clone, Default)]
pub struct Begin {
    /// The last row below the horizon, or the last one that retention removed.
    pub last: Position,
    /// The last row that retention removed.
    pub floor: Position,
    /// The position that the reader, or the bridge, names. `None` if it names none.
    pub wanted: Option<Position>,
    /// Whether the row of that position is there.
    pub is_there: bool,
    /// Whether the bridge exists.
    pub has_bridge: bool,
    /// The transactions that had been committed.
    pub committed: Committed,
}

impl Begin {
    fn new(wanted: Wanted) -> Self {
        Begin {
            wanted: wanted.after,
            ..Begin::default()
        }
    }

    fn add(&mut self, (_, snapshot, offset, last, floor, has_bridge, wanted, is_there): Row) {
        let offset = u64::try_from(offset).unwrap_or_default();
        self.committed = Committed::parse(&snapshot, offset).unwrap_or_default();
        self.floor = self.floor.max(position(floor).unwrap_or_default());
        let last = position(last).unwrap_or_default();
        self.last = self.last.max(last).max(self.floor);
        self.wanted = self.wanted.or(position(wanted));
        self.is_there |= is_there;
        self.has_bridge |= has_bridge;
    }

    /// Returns whether a reader can begin after the position that it names and miss nothing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.wanted.is_none_or(|wanted| {
            let is_known = self.is_there || wanted == self.floor;
            wanted >= self.floor && is_known
        })
    }
}

/// The transactions that had been committed when a snapshot was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    horizon: u64,
    xmax: u64,
    /// Those between the two that were in progress.
    in_progress: Vec<u64>,
}

impl Committed {
    /// Parses PostgreSQL's text, "xmin:xmax:xip,xip", and adds the offset of `xid` to it.
    #[must_use]
    pub fn parse(snapshot: &str, offset: u64) -> Option<Self> {
        let mut parts = snapshot.split(':');
        let mut next = || Some(parts.next()?.split(',').filter(|it| !it.is_empty()));
        let number = |text: &str| Some(text.parse::<u64>().ok()?.saturating_add(offset));
        Some(Committed {
            horizon: next()?.next().and_then(number)?,
            xmax: next()?.next().and_then(number)?,
            in_progress: next()?.filter_map(number).collect(),
        })
    }

    /// Returns whether a transaction that committed had done so before the snapshot.
    #[must_use]
    pub fn includes(&self, xid: u64) -> bool {
        xid < self.horizon || xid < self.xmax && !self.in_progress.contains(&xid)
    }

    /// Returns whether all of them are below a horizon.
    #[must_use]
    pub fn is_below(&self, horizon: u64) -> bool {
        self.xmax <= horizon
    }

    /// Returns whether a snapshot with this end may be a later one. If not, the database has lost
    /// transactions, and gives their numbers again.
    #[must_use]
    pub fn may_precede(&self, xmax: u64) -> bool {
        self.xmax <= xmax
    }
}

/// Finds where readers begin, each of a scope.
pub async fn find_begins(
    connection: &mut AsyncPgConnection,
    readers: &[(Scope, Wanted)],
) -> QueryResult<Vec<Begin>> {
    let mut namespaces: Vec<(usize, String, Wanted)> = Vec::new();
    for (reader, (scope, wanted)) in readers.iter().enumerate() {
        let found = match scope {
            Scope::Namespace(namespace) => vec![namespace.clone()],
            Scope::Prefix(prefix) => list_namespaces(connection, prefix).await?,
        };
        namespaces.extend(
            found
                .into_iter()
                .map(|namespace| (reader, namespace, *wanted)),
        );
    }
    let each = namespaces.iter();
    let after = each.clone().map(|(_, _, wanted)| wanted.after);
    let statement = FindBegin {
        namespace: each
            .clone()
            .map(|(_, namespace, _)| namespace.as_str())
            .collect(),
        xid: after
            .clone()
            .map(|it| it.map(Position::xid_for_sql))
            .collect(),
        seq: after.clone().map(|it| it.map(|it| it.seq)).collect(),
        transition_id: after.map(|it| it.map(|it| it.transition_id)).collect(),
        bridge_id: each.map(|(_, _, wanted)| wanted.bridge_id).collect(),
    };
    let rows: Vec<Row> = statement.load(connection).await?;
    let mut begins: Vec<Begin> = readers
        .iter()
        .map(|(_, wanted)| Begin::new(*wanted))
        .collect();
    for row in rows {
        let reader = namespaces.get(index_of(row.0)).map(|it| it.0);
        if let Some(begin) = reader.and_then(|reader| begins.get_mut(reader)) {
            begin.add(row);
        }
    }
    Ok(begins)
}

/// Returns the namespaces of tenants with this prefix that have rows, or had some.
async fn list_namespaces(
    connection: &mut AsyncPgConnection,
    prefix: &str,
) -> QueryResult<Vec<String>> {
    let statement = ListNamespaces {
        prefix: vec![prefix],
    };
    let found: Vec<String> = statement.load(connection).await?;
    Ok(found
        .into_iter()
        .filter(|it| !it.starts_with(RESERVED_PREFIX))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_tells_which_transactions_it_includes() {
        let committed = Committed::parse("10:20:10,14", 1000).unwrap();
        let included = |xid: u64| committed.includes(1000 + xid);
        assert!(included(9) && included(11) && included(19));
        assert!(!included(10) && !included(14) && !included(20) && !included(99));
        assert!(Committed::parse("7:7:", 0).unwrap().includes(6));
        assert_eq!(Committed::parse("", 0), None);
    }

    #[test]
    fn transactions_are_below_a_horizon_once_all_of_the_snapshot_are() {
        let committed = Committed::parse("10:20:10,14", 1000).unwrap();
        assert!(!committed.is_below(1010) && !committed.is_below(1019));
        assert!(committed.is_below(1020));
    }

    #[test]
    fn a_snapshot_of_a_database_with_fewer_transactions_is_no_later_one() {
        let committed = Committed::parse("10:20:10,14", 1000).unwrap();
        assert!(!committed.may_precede(1019));
        assert!(committed.may_precede(1020));
    }
}
