//! The floor of the journal: the last row, in the order of positions, that retention has removed.

use diesel_async::SimpleAsyncConnection;

use super::retention::prunes;
use crate::support::{App, Schema, bridgebook, eventually};

/// Inserts rows of the journal: namespace, entity type, xid, seq, and age in days.
async fn insert(schema: &Schema, rows: &[(&str, &str, i64, i64, i64)]) {
    let mut database = schema.connect().await;
    for (namespace, entity_type, xid, seq, days) in rows {
        let insert = format!(
            "INSERT INTO fsm_transitions (id, namespace, entity_id, entity_type, to_state,
                                          transition_event, xid, seq, created_at)
             OVERRIDING SYSTEM VALUE
             VALUES (gen_random_uuid(), '{namespace}', gen_random_uuid(), '{entity_type}', 'OPEN',
                     'turn', '{xid}', {seq}, now() - INTERVAL '{days} days')"
        );
        database.batch_execute(&insert).await.unwrap();
    }
}

/// Removes rows older than ten days.
fn prune(schema: &Schema) {
    let mut prune = bridgebook();
    prune.args(["prune", "--retain-transitions=10", "--database-url"]);
    let output = prune.arg(schema.url()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Counts the floors with this namespace and position.
async fn floors(schema: &Schema, namespace: &str, xid: i64, seq: i64) -> i64 {
    let floors = format!(
        "SELECT count(*) FROM journal_floors
          WHERE namespace = '{namespace}' AND xid = '{xid}' AND seq = {seq}"
    );
    schema.count(&floors).await
}

/// Returns the number of floors whose row is still there.
async fn present(schema: &Schema) -> i64 {
    let present = "SELECT count(*) FROM journal_floors JOIN fsm_transitions ON id = transition_id";
    schema.count(present).await
}

#[tokio::test]
async fn the_floor_is_the_last_removed_row_and_never_moves_back() {
    let app = App::start().await;
    let schema = &app.schema;
    // The times are not in the order of the positions.
    let first = [
        ("a", "valve", 100, 5, 20),
        ("a", "valve", 90, 2, 15),
        ("a", "valve", 101, 1, 30),
        ("a", "pump", 101, 4, 30),
        ("a", "pump", 80, 3, 25),
        ("a", "pump", 70, 6, 1),
        ("a", "pump", 200, 7, 1),
        ("b", "valve", 300, 8, 1),
        ("c", "valve", 50, 9, 11),
    ];
    insert(schema, &first).await;
    let remember = "CREATE TABLE earlier AS SELECT * FROM fsm_transitions";
    let mut database = schema.connect().await;
    database.batch_execute(remember).await.unwrap();
    prune(schema);
    assert_eq!(floors(schema, "a", 101, 4).await, 1);
    assert_eq!(floors(schema, "c", 50, 9).await, 1);
    let all = "SELECT count(*) FROM journal_floors";
    assert_eq!(schema.count(all).await, 2);
    assert_eq!(present(schema).await, 0);
    let same = "SELECT count(*) FROM journal_floors f JOIN earlier e
        ON (e.namespace, e.xid, e.seq, e.id) = (f.namespace, f.xid, f.seq, f.transition_id)";
    assert_eq!(schema.count(same).await, 2);
    let left = "SELECT count(*) FROM fsm_transitions";
    assert_eq!(schema.count(left).await, 3);

    // Rows before the floor expire later.
    let before = [("a", "valve", 100, 10, 20), ("a", "pump", 101, 3, 20)];
    insert(schema, &before).await;
    prune(schema);
    assert_eq!(schema.count(left).await, 3);
    assert_eq!(floors(schema, "a", 101, 4).await, 1);

    let after = [("a", "valve", 101, 11, 20), ("b", "valve", 299, 12, 20)];
    insert(schema, &after).await;
    prune(schema);
    assert_eq!(schema.count(left).await, 3);
    assert_eq!(floors(schema, "a", 101, 11).await, 1);
    assert_eq!(floors(schema, "b", 299, 12).await, 1);
    assert_eq!(floors(schema, "c", 50, 9).await, 1);
}

/// A trigger of the operator returns NULL.
#[tokio::test]
async fn a_row_that_stays_is_not_the_floor() {
    let app = App::start().await;
    let schema = &app.schema;
    insert(
        schema,
        &[("a", "valve", 100, 1, 30), ("a", "valve", 101, 2, 20)],
    )
    .await;
    let keep = "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
                    'BEGIN RETURN CASE WHEN OLD.seq = 2 THEN NULL ELSE OLD END; END';
                CREATE TRIGGER keeps BEFORE DELETE ON fsm_transitions
                    FOR EACH ROW EXECUTE FUNCTION keep()";
    let mut database = schema.connect().await;
    database.batch_execute(keep).await.unwrap();
    let mut replica = App::start_on(schema.clone(), prunes).await;
    replica.expect_errors();
    eventually("the other row is removed", async || {
        (floors(schema, "a", 100, 1).await == 1).then_some(())
    })
    .await;
    assert_eq!(present(schema).await, 0);
}

#[tokio::test]
async fn replicas_that_prune_a_namespace_at_once_do_not_deadlock_at_its_floor() {
    let app = App::start().await;
    let schema = &app.schema;
    // The rows of the entity types alternate, and so do their times.
    let rows = "INSERT INTO fsm_transitions (id, namespace, entity_id, entity_type, to_state,
                                             transition_event, xid, created_at)
         SELECT gen_random_uuid(), 'a', gen_random_uuid(), 'type-' || number % 3, 'OPEN', 'turn',
                number::text::xid8, now() - INTERVAL '20 days' + number * 7919 % 10007 * INTERVAL '1 s'
           FROM generate_series(1, 10000) AS number";
    let mut database = schema.connect().await;
    database.batch_execute(rows).await.unwrap();
    let replicas = [
        App::start_on(schema.clone(), prunes).await,
        App::start_on(schema.clone(), prunes).await,
        App::start_on(schema.clone(), prunes).await,
    ];
    eventually("all rows are removed", async || {
        let left = "SELECT count(*) FROM fsm_transitions";
        (schema.count(left).await == 0).then_some(())
    })
    .await;
    let highest = "SELECT xid::text::bigint FROM journal_floors WHERE namespace = 'a'";
    assert_eq!(schema.count(highest).await, 10_000);
    let mut removed = 0.0;
    for replica in &replicas {
        let figures = replica.figures();
        let journal = [("table", "fsm_transitions")];
        removed += figures.sum("bridgebook_retention_rows_total", &journal);
        let failures = figures.sum("bridgebook_retention_failures_total", &journal);
        let retries = figures.sum("bridgebook_database_retries_total", &[]);
        assert_eq!((failures, retries), (0.0, 0.0));
    }
    assert!(removed <= 10_000.0);
}
