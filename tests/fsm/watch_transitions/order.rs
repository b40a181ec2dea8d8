//! What holds for every stream, checked on recorded histories: ordered, each row once, none missing.

use std::collections::BTreeSet;

use bridgebook::domain::position::GivenPosition;
use bridgebook::proto::v1::{self, FsmTransition, watch_transitions_response::Message};
use diesel_async::SimpleAsyncConnection;
use tokio::task::JoinSet;

use super::{Watching, after, all, commit_rows, from_start, ids, make_moves, make_moves_of};
use crate::support::{App, Tenant, new_id};

/// How many writers make moves at once, and how many each.
const WRITERS: usize = 8;
const MOVES: usize = 40;

/// Makes moves with many writers on two replicas.
async fn write(replicas: [&App; 2], tenant: &Tenant) {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let tenant = Tenant {
            channel: replicas[writer % 2].channel.clone(),
            ..tenant.clone()
        };
        writers.spawn(async move { make_moves(&tenant, MOVES).await });
    }
    writers.join_all().await;
}

/// Checks a recorded stream against the journal.
fn check(recorded: &[FsmTransition], journal: &[FsmTransition]) {
    let positions: Vec<_> = recorded.iter().map(|row| &row.position).collect();
    assert!(positions.is_sorted(), "in the order of their positions");
    let distinct: BTreeSet<_> = positions.iter().collect();
    assert_eq!(distinct.len(), recorded.len(), "each once");
    assert_eq!(ids(recorded), ids(journal), "none is missing");
}

#[tokio::test]
async fn readers_see_every_row_once_in_order_whatever_they_read_from() {
    let first = App::start().await;
    let second = first.replica().await;
    let tenant = first.tenant();
    let of_second = Tenant {
        channel: second.channel.clone(),
        ..tenant.clone()
    };
    let mut live = Watching::open(&tenant, all(&tenant)).await.unwrap();
    let mut remote = Watching::open(&of_second, all(&tenant)).await.unwrap();
    // One that is cut off again and again, and goes on after its last message.
    let broken = tokio::spawn({
        let (tenant, start) = (of_second.clone(), live.ready.clone());
        async move {
            let mut rows = Vec::new();
            let mut position = start;
            while rows.len() < WRITERS * MOVES {
                let mut watching = Watching::open(&tenant, after(&tenant, &position))
                    .await
                    .unwrap();
                for _ in 0..2 {
                    if let Message::Transitions(it) = watching.message().await.unwrap() {
                        rows.extend(it.transitions);
                    }
                }
                position = watching.position;
            }
            rows
        }
    });
    write([&first, &second], &tenant).await;
    let live = live.transitions(WRITERS * MOVES).await;
    let remote = remote.transitions(WRITERS * MOVES).await;
    let mut late = Watching::open(&tenant, from_start(&tenant)).await.unwrap();
    let late = late.transitions(WRITERS * MOVES).await;
    let mut by_position = late.clone();
    by_position.sort_by(|a, b| a.position.cmp(&b.position));
    for recorded in [&live, &remote, &broken.await.unwrap(), &late] {
        check(recorded, &by_position);
    }
}

#[tokio::test]
async fn readers_of_an_entity_miss_nothing_whenever_they_join() {
    let (_app, tenant) = App::with_tenant().await;
    // While it is watched, the tail reads the rows of watched entities only.
    let mut first = make_moves(&tenant, 1).await;
    let start = first.remove(0).position;
    let entity_ids: Vec<_> = (0..20).map(|_| new_id()).collect();
    let mut readers = JoinSet::new();
    for (number, entity_id) in entity_ids.iter().enumerate() {
        let (tenant, entity_id) = (tenant.clone(), entity_id.clone());
        let request = v1::WatchTransitionsRequest {
            entity_id: entity_id.clone(),
            ..after(&tenant, &start)
        };
        readers.spawn(async move {
            // Each joins while the moves of those before are read.
            make_moves_of(&tenant, &entity_id, number).await;
            let mut watching = Watching::open(&tenant, request).await.unwrap();
            let made = make_moves_of(&tenant, &entity_id, 20).await;
            let rows = watching.transitions(number + 20).await;
            assert_eq!(ids(&rows), ids(&made));
        });
    }
    readers.join_all().await;
}

#[tokio::test]
async fn an_open_transaction_delays_rows_and_loses_none() {
    let (app, tenant) = App::with_tenant().await;
    let mut watching = Watching::open(&tenant, all(&tenant)).await.unwrap();
    // It has a lower number than the rows after it, and writes its own row last.
    let mut open = app.schema.connect().await;
    open.batch_execute("BEGIN; SELECT pg_current_xact_id()")
        .await
        .unwrap();
    let early = make_moves(&tenant, 3).await;
    assert_eq!(
        watching.bookmark().await,
        watching.ready,
        "nothing is settled"
    );
    let insert = format!(
        "INSERT INTO fsm_transitions (id, entity_id, entity_type, to_state, transition_event, namespace)
         VALUES (gen_random_uuid(), gen_random_uuid(), 'late', 'X', 'late', '{}')",
        tenant.namespace
    );
    open.batch_execute(&insert).await.unwrap();
    open.batch_execute("COMMIT").await.unwrap();
    let rows = watching.transitions(4).await;
    assert_eq!(rows[0].entity_type, "late", "it has the lowest position");
    assert_eq!(ids(&rows[1..]), ids(&early));
}

#[tokio::test]
async fn a_bookmark_follows_a_commit_of_as_many_rows_as_reads_take() {
    let (app, tenant) = App::with_tenant().await;
    let mut watching = Watching::open(&tenant, all(&tenant)).await.unwrap();
    // Two whole reads. The third one finds no row.
    commit_rows(&app, &tenant, 4000).await;
    let rows = watching.transitions(4000).await;
    assert_eq!(watching.bookmark().await, rows[3999].position);
}

/// Returns the transaction of a position.
fn xid(position: &str) -> u64 {
    let position = GivenPosition::parse(position).expect("a position");
    position.of_any().xid
}

/// How many rows each of many commits has.
const ROWS_OF_COMMIT: usize = 7;

/// Writes rows to the journal, in this many commits.
async fn commit_many(app: &App, tenant: &Tenant, commits: usize) {
    let insert = format!(
        "DO $$ BEGIN FOR n IN 1..{commits} LOOP
             INSERT INTO fsm_transitions
                    (id, entity_id, entity_type, to_state, transition_event, namespace)
             SELECT gen_random_uuid(), gen_random_uuid(), 'bulk', 'X', 'bulk', '{}'
               FROM generate_series(1, {ROWS_OF_COMMIT});
             COMMIT;
         END LOOP; END $$",
        tenant.namespace
    );
    let mut connection = app.schema.connect().await;
    connection.batch_execute(&insert).await.unwrap();
}

/// Checks that no commit is in two messages of a stream, so that a bookmark can follow each.
async fn assert_commits_are_whole(mut watching: Watching, commits: usize) {
    let (mut messages, mut rows) = (0, Vec::<FsmTransition>::new());
    while rows.len() < ROWS_OF_COMMIT * commits {
        if let Message::Transitions(it) = watching.message().await.unwrap() {
            let next = it.transitions.first().unwrap();
            let last = rows.last().map(|row| xid(&row.position));
            assert_ne!(last, Some(xid(&next.position)), "a commit is split");
            rows.extend(it.transitions);
            messages += 1;
        }
    }
    assert!(messages > 3, "the rows do not fit into one message");
    check(&rows, &rows);
}

#[tokio::test]
async fn a_reader_of_old_rows_gets_commits_whole() {
    let (app, tenant) = App::with_tenant().await;
    commit_many(&app, &tenant, 1000).await;
    let watching = Watching::open(&tenant, from_start(&tenant)).await.unwrap();
    assert_commits_are_whole(watching, 1000).await;
}

#[tokio::test]
async fn a_live_reader_gets_commits_whole() {
    let (app, tenant) = App::with_tenant().await;
    let watching = Watching::open(&tenant, all(&tenant)).await.unwrap();
    // More rows than one read takes become readable at once.
    let mut open = app.schema.connect().await;
    let begin = "BEGIN; SELECT pg_current_xact_id()";
    open.batch_execute(begin).await.unwrap();
    commit_many(&app, &tenant, 1000).await;
    open.batch_execute("ROLLBACK").await.unwrap();
    assert_commits_are_whole(watching, 1000).await;
}

#[tokio::test]
async fn a_bookmark_is_never_within_a_commit() {
    let (app, tenant) = App::with_tenant().await;
    let mut watching = Watching::open(&tenant, all(&tenant)).await.unwrap();
    // Two are larger than one read.
    for rows in [5000, 3, 4500] {
        commit_rows(&app, &tenant, rows).await;
    }
    let mut rows = Vec::new();
    let mut ends = BTreeSet::from([watching.ready.clone()]);
    while rows.len() < 9503 {
        match watching.message().await.unwrap() {
            Message::Transitions(it) => rows.extend(it.transitions),
            Message::Bookmark(it) => drop(ends.insert(it.position)),
            other => panic!("not expected: {other:?}"),
        }
    }
    ends.insert(watching.bookmark().await);
    let last_of_commits = [4999, 5002, 9502].map(|row: usize| rows[row].position.clone());
    let allowed: BTreeSet<_> = last_of_commits
        .into_iter()
        .chain([watching.ready.clone()])
        .collect();
    assert!(ends.is_subset(&allowed), "{ends:?}");
    // The same for one that reads pages.
    let mut late = Watching::open(&tenant, from_start(&tenant)).await.unwrap();
    assert_eq!(ids(&late.transitions(9503).await), ids(&rows));
    assert!(allowed.contains(&late.bookmark().await));
}
