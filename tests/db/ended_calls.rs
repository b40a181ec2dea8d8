//! Items of calls that end while they wait: no statement runs for them.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bridgebook::{
    db::{
        Database, DbError,
        batch::{
            Answers, Batcher, Operation,
            reservation::{BATCH_BYTES, Held},
        },
    },
    domain::limits::MAX_RESPONSE,
    ops::metrics::Metrics,
};
use diesel_async::AsyncPgConnection;
use futures_util::future::BoxFuture;
use tokio::{sync::Semaphore, time::timeout};

use crate::support::{Figures, Schema, database_address, eventually};

/// How many batches may reserve memory at the same time.
const RESERVATIONS: usize = 18;

/// The items that have run.
static RAN: Mutex<Vec<(&str, usize)>> = Mutex::new(Vec::new());

/// Lets the item 0 of [`Queued`] end.
static GATE: Semaphore = Semaphore::const_new(0);

fn ran() -> MutexGuard<'static, Vec<(&'static str, usize)>> {
    RAN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn items_of(operation: &str) -> Vec<usize> {
    let ran = ran();
    let items = ran.iter().filter(|(name, _)| *name == operation);
    items.map(|(_, item)| *item).collect()
}

/// Declares an operation whose items all go to the same worker.
macro_rules! operation {
    ($name:ident, $reads_documents:literal) => {
        struct $name;

        impl Operation for $name {
            const NAME: &'static str = stringify!($name);
            const READS_DOCUMENTS: bool = $reads_documents;
            type Item = usize;
            type Answer = usize;
            type Key = ();

            fn key(_item: &usize) {}

            fn tenant(_item: &usize) -> &str {
                ""
            }

            fn run<'a>(
                _: &'a mut AsyncPgConnection,
                items: &'a [&'a usize],
            ) -> BoxFuture<'a, Result<Answers<usize>, DbError>> {
                Box::pin(async move {
                    ran().extend(items.iter().map(|item| (Self::NAME, **item)));
                    if !Self::READS_DOCUMENTS && items.contains(&&0) {
                        drop(GATE.acquire().await);
                    }
                    Ok(items.iter().map(|item| Some(Ok(**item))).collect())
                })
            }

            fn bytes_read(_answer: &usize) -> usize {
                BATCH_BYTES + MAX_RESPONSE
            }
        }
    };
}

operation!(Queued, false);
operation!(Reserving, true);

async fn database() -> (Schema, Database, Metrics) {
    let schema = Schema::create().await;
    let metrics = Metrics::new().unwrap();
    let database = Database::new(&database_address(&schema.url()), 4, &metrics);
    database.mark_ready();
    (schema, database, metrics)
}

#[tokio::test]
async fn an_item_of_a_call_that_ends_in_the_queue_does_not_run() {
    let (_schema, database, _) = database().await;
    let batcher = Batcher::<Queued>::new(&database);
    let ended = async {
        eventually("the first item runs", || async {
            (items_of("Queued") == [0]).then_some(())
        })
        .await;
        let call = timeout(Duration::from_millis(1), batcher.submit(1)).await;
        assert!(call.is_err(), "it waits");
        let last = batcher.submit(2);
        GATE.add_permits(1);
        last.await.unwrap();
    };
    let (first, ()) = tokio::join!(batcher.submit(0), ended);
    first.unwrap();
    assert_eq!(items_of("Queued"), [0, 2]);
}

#[tokio::test]
async fn an_item_of_a_call_that_ends_while_its_batch_waits_for_memory_does_not_run() {
    let (_schema, database, metrics) = database().await;
    let batcher = Batcher::<Reserving>::new(&database);
    let mut held: Vec<Held<usize>> = Vec::new();
    for item in 0..RESERVATIONS {
        held.push(batcher.submit_held(item).await.unwrap());
    }
    let figures = || Figures::parse(metrics.text().unwrap());
    let all = (RESERVATIONS * (BATCH_BYTES + MAX_RESPONSE)) as f64;
    assert_eq!(figures().sum("bridgebook_read_memory_bytes", &[]), all);
    let ended = batcher.submit_held(100);
    let begun = eventually("its batch begins", || async {
        let labels = [("operation", "Reserving")];
        let begun = figures().sum("bridgebook_batch_wait_seconds_count", &labels);
        (begun == RESERVATIONS as f64 + 1.0).then_some(())
    });
    tokio::select! {
        answer = ended => panic!("it did not wait: {answer:?}"),
        () = begun => {}
    }
    held.clear();
    batcher.submit_held(101).await.unwrap();
    let expected: Vec<_> = (0..RESERVATIONS).chain([101]).collect();
    assert_eq!(items_of("Reserving"), expected);
    let waits = figures().sum("bridgebook_read_memory_wait_seconds_count", &[]);
    assert_eq!(waits, RESERVATIONS as f64 + 2.0);
}
