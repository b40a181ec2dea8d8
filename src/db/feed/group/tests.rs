//! What readers of a group get.

use super::*;
use crate::db::journal::Xid;

/// Makes the rows of commits, of which each has this many.
fn commits(commits: u64, rows: u64) -> ScopeRows {
    let rows: Vec<_> = (0..commits * rows)
        .map(|number| Transition {
            xid: Xid(1 + number / rows),
            seq: i64::try_from(number).unwrap(),
            ..Transition::for_test("NEW")
        })
        .collect();
    ScopeRows {
        last: rows.last().map(Transition::journal_position),
        is_complete: true,
        rows,
        ..ScopeRows::default()
    }
}

fn taken(group: &Group, reader: u64) -> Vec<u64> {
    match group.take(reader) {
        Taken::Rows { rows, .. } => rows.iter().map(|row| row.xid.0).collect(),
        Taken::None(_) => Vec::new(),
        Taken::Lagged | Taken::Lost => panic!("it has to read pages"),
    }
}

#[test]
fn a_reader_takes_commits_whole() {
    let group = Group::default();
    let (reader, ..) = group.join(Arc::default());
    group.give(commits(100, 7), &group.demand(), 1000);
    let mut all = Vec::new();
    while let xids = taken(&group, reader)
        && !xids.is_empty()
    {
        assert_ne!(all.last(), xids.first());
        all.extend(xids);
    }
    assert_eq!(all.len(), 700);
    // One that does not fit comes in parts, between which there is no bookmark.
    group.give(commits(1, 1200), &group.demand(), 1000);
    let Taken::Rows { rows, settled } = group.take(reader) else {
        panic!("no rows");
    };
    assert_eq!((rows.len(), settled), (TAKEN_ROWS, None));
}

#[test]
fn a_reader_that_joins_during_a_read_of_other_entities_reads_pages() {
    let of = |id| TransitionMatch {
        entity_id: Some(Uuid::from_u128(id)),
        ..TransitionMatch::default()
    };
    let group = Group::default();
    let (early, ..) = group.join(Arc::new(of(2)));
    let demand = group.demand();
    assert_eq!(demand.entity_ids, Some(vec![Uuid::from_u128(2)]));
    let (late, ..) = group.join(Arc::new(of(3)));
    group.give(commits(1, 1), &demand, 1000);
    assert_eq!(taken(&group, early), [1]);
    assert!(matches!(group.take(late), Taken::Lagged));
    assert!(group.end(late).is_none());

    // A read of all rows has those of later readers, too, and one that finds none skips none.
    let (all, ..) = group.join(Arc::default());
    let demand = group.demand();
    assert_eq!(demand.entity_ids, None);
    let (later, ..) = group.join(Arc::new(of(2)));
    group.give(commits(1, 1), &demand, 1000);
    assert_eq!(taken(&group, later), [1]);
    assert_eq!(taken(&group, all), [1]);
    group.leave(all);
    let demand = group.demand();
    let (last, ..) = group.join(Arc::new(of(4)));
    group.give(commits(0, 1), &demand, 1000);
    assert!(matches!(group.take(last), Taken::None(_)));
}

#[test]
fn every_reader_can_take_the_rows_of_one_read_however_large_they_are() {
    let group = Group::default();
    let readers = [0, 1].map(|_| group.join(Arc::default()).0);
    let size = Transition::for_test("NEW").size() as u64;
    let count = KEPT_BYTES as u64 / size + 100;
    group.give(commits(count, 1), &group.demand(), 1000);
    for reader in readers {
        let mut rows = 0;
        while let xids = taken(&group, reader)
            && !xids.is_empty()
        {
            rows += xids.len() as u64;
        }
        assert_eq!(rows, count);
    }
    assert_eq!(group.lock().bytes, 0, "nothing is kept");
}

#[test]
fn rows_of_earlier_reads_are_kept_within_bounds() {
    let group = Group::default();
    let (slow, ..) = group.join(Arc::default());
    let size = Transition::for_test("NEW").size() as u64;
    let count = KEPT_BYTES as u64 / size + 100;
    for _ in 0..2 {
        group.give(commits(count, 1), &group.demand(), 1000);
    }
    assert!(matches!(group.take(slow), Taken::Lagged));
}
