//! Batches whose code panics.

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

use crate::support::Schema;

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
    let database = Database::new(&schema.url(), 4, &metrics);
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
