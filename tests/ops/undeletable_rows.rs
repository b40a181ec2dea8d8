//! Retention of tenants with rows that cannot be removed.

use diesel_async::SimpleAsyncConnection;

use super::retention::{leave_workflows, prune_that_fails, prunes};
use crate::support::{App, Schema, Server, eventually, new_id};

/// The number of expired workflows and transitions, of which some cannot be removed.
const ROWS: i64 = 700;

/// Leaves expired workflows with steps, and expired transitions. Returns the id of the oldest
/// transition.
async fn leave_rows(schema: &Schema, namespace: &str) -> String {
    let oldest = new_id();
    leave_workflows(schema, namespace, ROWS, 2, 0).await;
    let insert = format!(
        "INSERT INTO fsm_transitions (id, namespace, entity_id, entity_type, to_state,
                                      transition_event, transition_data, created_at)
         SELECT CASE number WHEN {ROWS} THEN '{oldest}' ELSE gen_random_uuid() END,
                '{namespace}', gen_random_uuid(), 'order', 'NEW', 'go', '{{}}',
                now() - INTERVAL '20 days' - number * INTERVAL '1 s'
           FROM generate_series(1, {ROWS}) AS number"
    );
    let mut database = schema.connect().await;
    database.batch_execute(&insert).await.unwrap();
    oldest
}

/// Makes the deletes of the two oldest rows and of the youngest fail.
async fn refuse_some(schema: &Schema) {
    refuse(schema, &format!("IN (1, 2, {ROWS})")).await;
}

/// Makes the deletes of some rows fail, by their numbers from the oldest.
async fn refuse(schema: &Schema, numbers: &str) {
    keep(schema, numbers, "RAISE 'it is refused'").await;
}

/// Makes the deletes of some rows do nothing, without an error.
async fn ignore(schema: &Schema, numbers: &str) {
    keep(schema, numbers, "RETURN NULL").await;
}

async fn keep(schema: &Schema, numbers: &str, action: &str) {
    let refuse = |table: &str, age: &str| {
        format!(
            "CREATE TABLE kept_{table} AS
                SELECT id FROM (SELECT id, row_number() OVER (ORDER BY {age}) AS number
                                  FROM {table}) it
                 WHERE number {numbers};
             CREATE TRIGGER refuses BEFORE DELETE ON {table}
                 FOR EACH ROW EXECUTE FUNCTION refuse('kept_{table}')"
        )
    };
    let refuse = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE is_kept BOOLEAN;
         BEGIN
             EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE id = $1)', TG_ARGV[0])
                INTO is_kept USING OLD.id;
             IF is_kept THEN {action}; END IF;
             RETURN OLD;
         END $$;
         {}; {}",
        refuse("workflow_executions", "completed_at"),
        refuse("fsm_transitions", "created_at")
    );
    let mut database = schema.connect().await;
    database.batch_execute(&refuse).await.unwrap();
}

/// Counts the workflows and the transitions that remain.
async fn left(schema: &Schema) -> [i64; 2] {
    [
        schema
            .count("SELECT count(*) FROM workflow_executions")
            .await,
        schema.count("SELECT count(*) FROM fsm_transitions").await,
    ]
}

/// Waits until three rows of each table remain, and each of them is counted.
async fn three_of_each_remain(replica: &App) {
    eventually("the others are removed", async || {
        (left(&replica.schema).await == [3, 3]).then_some(())
    })
    .await;
    eventually("each of them is counted", async || {
        let figures = replica.figures();
        let tables = ["workflow_executions", "fsm_transitions"];
        let mut failures = tables
            .iter()
            .map(|table| figures.sum("bridgebook_retention_failures_total", &[("table", table)]));
        failures.all(|count| count >= 3.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn rows_that_cannot_be_removed_do_not_keep_the_others_of_their_tenant() {
    let app = App::start().await;
    leave_rows(&app.schema, &app.tenant().namespace).await;
    refuse_some(&app.schema).await;
    let mut replica = App::start_on(app.schema.clone(), prunes).await;
    replica.expect_errors();
    three_of_each_remain(&replica).await;
    let allow = "DROP TRIGGER refuses ON workflow_executions;
                 DROP TRIGGER refuses ON fsm_transitions";
    let mut database = app.schema.connect().await;
    database.batch_execute(allow).await.unwrap();
    eventually("a later pass removes them", async || {
        (left(&app.schema).await == [0, 0]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_log_names_a_row_that_cannot_be_removed() {
    let app = App::start().await;
    let namespace = app.tenant().namespace;
    let oldest = leave_rows(&app.schema, &namespace).await;
    refuse_some(&app.schema).await;
    let url = app.schema.url();
    let arguments = ["--database-url", &url, "--retain-transitions=10"];
    let arguments = [&arguments[..], &["--prune-interval=1"]].concat();
    let server = Server::spawn(&arguments).expect_errors();
    eventually("the row is logged", || async {
        let log = server.log();
        let line = log.lines().find(|line| line.contains(&oldest))?;
        let names_all = ["fsm_transitions", &namespace, "it is refused"];
        names_all.iter().all(|it| line.contains(it)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_prune_command_removes_the_other_rows_and_fails() {
    let app = App::start().await;
    let namespace = app.tenant().namespace;
    leave_rows(&app.schema, &namespace).await;
    refuse_some(&app.schema).await;
    // A step that times out on a busy machine leaves its rows to the next pass.
    let log = eventually("the other rows are removed", async || {
        let (_, log) = prune_that_fails(&app.schema);
        (left(&app.schema).await == [3, ROWS]).then_some(log)
    })
    .await;
    assert!(log.contains("an expired row cannot be removed"), "{log}");
}

#[tokio::test]
async fn rows_that_cannot_be_removed_are_not_tried_again_and_again() {
    let app = App::start().await;
    leave_rows(&app.schema, &app.tenant().namespace).await;
    refuse(&app.schema, "> 0").await;
    let mut replica = App::start_on(app.schema.clone(), prunes).await;
    replica.expect_errors();
    eventually("more failures than retries", async || {
        let figures = replica.figures();
        let failures = figures.sum("bridgebook_retention_failures_total", &[]);
        let retries = figures.sum("bridgebook_database_retries_total", &[]);
        // Only the first step of each group repeats its statement.
        (failures >= 100.0).then(|| assert!(retries < failures / 2.0, "{retries} of {failures}"))
    })
    .await;
    assert_eq!(left(&app.schema).await, [ROWS, ROWS]);
}

#[tokio::test]
async fn the_prune_command_reports_rows_that_it_removed_before_it_failed() {
    let app = App::start().await;
    leave_rows(&app.schema, &app.tenant().namespace).await;
    refuse(&app.schema, "> 550").await;
    let (removed, _) = prune_that_fails(&app.schema);
    assert!(removed.contains(" 550 removed"), "{removed}");
    assert_eq!(left(&app.schema).await, [ROWS - 550, ROWS]);
}

#[tokio::test]
async fn rows_that_stay_without_an_error_do_not_keep_the_others_of_their_tenant() {
    let app = App::start().await;
    leave_rows(&app.schema, &app.tenant().namespace).await;
    ignore(&app.schema, &format!("IN (1, 2, {ROWS})")).await;
    let mut replica = App::start_on(app.schema.clone(), prunes).await;
    replica.expect_errors();
    three_of_each_remain(&replica).await;
}

#[tokio::test]
async fn rows_that_all_stay_without_an_error_leave_time_to_other_tables() {
    let app = App::start().await;
    let tenant = app.tenant();
    leave_rows(&app.schema, &tenant.namespace).await;
    ignore(&app.schema, "> 0").await;
    let stamp = format!(
        "INSERT INTO metadata_stamps (id, namespace, file_hash, created_at)
         VALUES (gen_random_uuid(), '{}', 'hash', now() - INTERVAL '20 days')",
        tenant.namespace
    );
    let mut database = app.schema.connect().await;
    database.batch_execute(&stamp).await.unwrap();
    let mut replica = App::start_on(app.schema.clone(), prunes).await;
    replica.expect_errors();
    eventually("a pass reaches the stamps, which come last", async || {
        let stamps = "SELECT count(*) FROM metadata_stamps";
        (app.schema.count(stamps).await == 0).then_some(())
    })
    .await;
    assert_eq!(left(&app.schema).await, [ROWS, ROWS]);
}

#[tokio::test]
async fn the_prune_command_ends_with_an_error_if_rows_stay_without_one() {
    let app = App::start().await;
    leave_rows(&app.schema, &app.tenant().namespace).await;
    ignore(&app.schema, "IN (1, 2, 650)").await;
    let (removed, log) = prune_that_fails(&app.schema);
    assert!(removed.contains(" 697 removed"), "{removed}");
    assert!(log.contains("a trigger that returns NULL"), "{log}");
    assert_eq!(left(&app.schema).await, [3, ROWS]);
}

/// The parts of a workflow that is too large for one step: it moves, and its steps are deleted.
#[tokio::test]
async fn a_large_workflow_of_which_no_part_can_be_removed_ends_the_pass() {
    let app = App::start().await;
    let namespace = app.tenant().namespace;
    for (table, event) in [
        ("workflow_executions", "UPDATE"),
        ("workflow_steps", "DELETE"),
    ] {
        leave_workflows(&app.schema, &namespace, 1, 600, 0).await;
        let mut database = app.schema.connect().await;
        let ignore = format!(
            "CREATE FUNCTION ignore_{table}() RETURNS trigger LANGUAGE plpgsql
                 AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER ignores BEFORE {event} ON {table}
                 FOR EACH ROW EXECUTE FUNCTION ignore_{table}()"
        );
        database.batch_execute(&ignore).await.unwrap();
        let (removed, log) = prune_that_fails(&app.schema);
        assert!(!removed.contains(" 1 removed"), "{removed}");
        assert!(log.contains("a trigger that returns NULL"), "{log}");
        let allow = format!("DROP TRIGGER ignores ON {table}");
        database.batch_execute(&allow).await.unwrap();
    }
}
