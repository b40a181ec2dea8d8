//! Batches whose code panics.

use std::sync::Mutex;

use bridgebook::{
    db::{
        Database, DbError,
        batch::{Answers, Batcher, Operation},
    },
    domain::error::Error,
    ops::metrics::Metrics,
};
use diesel_async::AsyncPgConnection;
use futures_util::future::BoxFuture;

use crate::support::{Schema, database_address};

/// Doubles numbers, and panics at one of them.
struct Double;

const POISON: u32 = 13;

impl Operation for Double {
    const NAME: &'static str = "Double";
    type Item = u32;
    type Answer = u32;
    type Key = ();

    fn key(_: &u32) {}

    fn tenant(_item: &Self::Item) -> &str {
        ""
    }

    fn run<'a>(
        _: &'a mut AsyncPgConnection,
        items: &'a [&'a u32],
    ) -> BoxFuture<'a, Result<Answers<u32>, DbError>> {
        Box::pin(async move {
            let doubled = items.iter().map(|item| {
                assert_ne!(**item, POISON, "a fault of the operation");
                Some(Ok(**item * 2))
            });
            Ok(doubled.collect())
        })
    }
}

#[tokio::test]
async fn a_panic_fails_only_the_item_that_causes_it_and_is_counted() {
    let schema = Schema::create().await;
    let metrics = Metrics::new().unwrap();
    let database = Database::new(&database_address(&schema.url()), 4, &metrics);
    database.mark_ready();
    let batcher = Batcher::<Double>::new(&database);
    for _ in 0..2 {
        let answers = batcher.submit_all((0..32).collect()).await;
        for (item, answer) in (0..).zip(answers) {
            match answer {
                Ok(doubled) => assert_eq!(doubled, item * 2),
                Err(Error::Internal(_)) => assert_eq!(item, POISON),
                Err(other) => panic!("{other}"),
            }
        }
    }
    // The batch of 32 items is halved five times, and panics each time.
    assert_eq!(metrics.panics().get(), 2 * 6);
}

/// Answers only the first item of a batch, as if the rows of the others were too large to be read
/// with it. Panics at the poison.
struct OneByOne;

/// The items that were answered, in order.
static ANSWERED: Mutex<Vec<u32>> = Mutex::new(Vec::new());

impl Operation for OneByOne {
    const NAME: &'static str = "OneByOne";
    type Item = u32;
    type Answer = ();
    type Key = ();

    fn key(_: &u32) {}

    fn tenant(_item: &Self::Item) -> &str {
        ""
    }

    fn run<'a>(
        _: &'a mut AsyncPgConnection,
        items: &'a [&'a u32],
    ) -> BoxFuture<'a, Result<Answers<()>, DbError>> {
        Box::pin(async move {
            assert!(!items.contains(&&POISON), "a fault of the operation");
            ANSWERED.lock().unwrap().extend(items.first().copied());
            Ok((0..items.len())
                .map(|it| (it == 0).then_some(Ok(())))
                .collect())
        })
    }
}

#[tokio::test]
async fn items_with_one_key_keep_their_order_when_their_batch_is_split_and_stops_reading() {
    let schema = Schema::create().await;
    let database = Database::new(
        &database_address(&schema.url()),
        4,
        &Metrics::new().unwrap(),
    );
    database.mark_ready();
    let batcher = Batcher::<OneByOne>::new(&database);
    let answers = batcher.submit_all((0..32).collect()).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1);
    let answered = ANSWERED.lock().unwrap();
    assert!(
        answered
            .iter()
            .copied()
            .eq((0..32).filter(|it| *it != POISON))
    );
}
