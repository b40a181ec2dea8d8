//! All statements lock rows in the order of their keys, so that no two of them deadlock.

use bridgebook::proto::Rpc;

use super::writes::{Writes, kinds, write_rpcs};
use crate::support::App;

const ROWS: usize = 25;

/// Every pair of RPCs that write the same kind of row. Each RPC is also a pair with itself.
fn pairs() -> Vec<(Rpc, Rpc)> {
    let rpcs = write_rpcs();
    let mut pairs = Vec::new();
    for (index, first) in rpcs.iter().enumerate() {
        for second in &rpcs[index..] {
            if !kinds(*first).is_disjoint(&kinds(*second)) {
                pairs.push((*first, *second));
            }
        }
    }
    pairs
}

/// PostgreSQL would end a deadlock by failing one statement after a second, and the service
/// would retry that. PostgreSQL's own count includes other tests.
#[tokio::test(flavor = "multi_thread")]
async fn no_two_writes_of_the_same_rows_in_opposite_orders_deadlock() {
    let app = App::start().await;
    let replica = app.replica().await;
    let pairs = pairs();
    assert!(pairs.len() > 40, "only {} pairs", pairs.len());
    for (first, second) in pairs {
        let writes = Writes::new(&app, ROWS).await;
        tokio::join!(
            writes.write(&app, first, 0..ROWS),
            writes.write(&replica, second, (0..ROWS).rev()),
            writes.write(&app, second, 0..ROWS),
            writes.write(&replica, first, (0..ROWS).rev()),
        );
        for service in [&app, &replica] {
            let retries = service.figures();
            let cause = [("cause", "transient")];
            let retries = retries.sum("bridgebook_database_retries_total", &cause);
            assert_eq!(retries, 0.0, "{first:?} and {second:?}");
        }
    }
}
