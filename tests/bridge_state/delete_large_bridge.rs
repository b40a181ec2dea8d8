//! Deleting bridges with more batches than a statement can delete.

use std::time::Duration;

use bridgebook::proto::v1::{
    AccumulateBridgeStateRequest, DeleteBridgeStateRequest, ListNamespaceSummariesRequest,
    admin_service_client::AdminServiceClient,
};
use diesel_async::SimpleAsyncConnection;
use tonic::Code;

use super::{accumulate, batch, bridge, client, get, history, new_bridge, totals, upsert};
use crate::support::{App, Failure, Tenant, bridgebook, eventually, failure};

/// Gives a bridge 12,000 batches. A trigger delays each delete of one, so that all of them
/// together would take longer than a statement may.
async fn grow(app: &App, tenant: &Tenant, bridge_id: &str) {
    let sql = format!(
        "INSERT INTO bridge_batches (namespace, bridge_id, batch_id, workflows_processed,
             items_aggregated, request_digest)
         SELECT '{}', '{bridge_id}', gen_random_uuid(), 1, 1, ''
           FROM generate_series(1, 12000);
         CREATE FUNCTION delay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_sleep(0.001);
             RETURN OLD;
         END $$;
         CREATE TRIGGER is_slow BEFORE DELETE ON bridge_batches
             FOR EACH ROW EXECUTE FUNCTION delay()",
        tenant.namespace
    );
    let mut connection = app.schema.connect().await;
    connection.batch_execute(&sql).await.unwrap();
}

fn deletion(tenant: &Tenant, bridge_id: &str) -> DeleteBridgeStateRequest {
    DeleteBridgeStateRequest {
        namespace: tenant.namespace.clone(),
        bridge_id: bridge_id.into(),
        allow_missing: false,
    }
}

/// Makes a large bridge that knows a batch, and deletes it.
async fn deleted_bridge(app: &App, tenant: &Tenant) -> (String, AccumulateBridgeStateRequest) {
    let id = new_bridge(tenant).await;
    let counted = AccumulateBridgeStateRequest {
        current_fsm_state: "ACTIVE".into(),
        ..batch(tenant, &id, 7)
    };
    accumulate(tenant, counted.clone()).await.unwrap();
    grow(app, tenant, &id).await;
    let answer = client(tenant)
        .delete_bridge_state(deletion(tenant, &id))
        .await;
    assert!(answer.unwrap().into_inner().deleted);
    let mut connection = app.schema.connect().await;
    let fast = "DROP TRIGGER is_slow ON bridge_batches";
    connection.batch_execute(fast).await.unwrap();
    (id, counted)
}

async fn count_batches(app: &App, bridge_id: &str) -> i64 {
    let batches = format!("SELECT count(*) FROM bridge_batches WHERE bridge_id = '{bridge_id}'");
    app.schema.count(&batches).await
}

#[tokio::test]
async fn a_bridge_with_many_batches_is_gone_at_once_and_its_batches_are_removed_in_parts() {
    let (app, tenant) = App::with_tenant().await;
    let other = new_bridge(&tenant).await;
    accumulate(&tenant, batch(&tenant, &other, 3))
        .await
        .unwrap();
    let (id, counted) = deleted_bridge(&app, &tenant).await;

    let gone = Failure::new(Code::NotFound, "BRIDGE_NOT_FOUND");
    assert_eq!(failure(get(&tenant, &id).await), gone);
    let again = client(&tenant)
        .delete_bridge_state(deletion(&tenant, &id))
        .await;
    assert_eq!(failure(again), gone);
    let last = history(&tenant, &id).await.pop().unwrap();
    assert_eq!(last, ("delete".to_owned(), "DELETED".to_owned()));
    let mut admin = AdminServiceClient::new(app.channel.clone());
    let summaries = admin.list_namespace_summaries(ListNamespaceSummariesRequest::default());
    let summaries = summaries.await.unwrap().into_inner().summaries;
    assert!(summaries.iter().all(|it| it.namespace == tenant.namespace));
    assert_eq!(summaries[0].bridge_count, 1);

    // The id stays taken for all tenants while batches are left that it would inherit.
    let taken = Failure::new(Code::AlreadyExists, "ID_CONFLICT");
    assert_eq!(failure(accumulate(&tenant, counted.clone()).await), taken);
    let stranger = app.tenant();
    assert_eq!(
        failure(upsert(&stranger, bridge(&stranger, &id)).await),
        taken
    );

    let pruning = App::start_on(app.schema.clone(), |config| {
        config.prune_interval = Duration::from_millis(20);
    });
    let pruning = pruning.await;
    let left = format!("SELECT count(*) FROM bridge_states WHERE bridge_id = '{id}'");
    eventually("nothing of it is left", || async {
        (app.schema.count(&left).await == 0).then_some(())
    })
    .await;
    assert_eq!(count_batches(&app, &id).await, 0);
    let table = [("table", "bridge_batches")];
    let removed = pruning
        .figures()
        .sum("bridgebook_retention_rows_total", &table);
    assert!(removed <= 12_002.0, "{removed}");
    // The batch counts again, and the revisions go on.
    let third = accumulate(&tenant, counted).await.unwrap();
    assert!(third.applied);
    assert_eq!(third.bridge_state.unwrap().revision, 3);
    assert_eq!(totals(&tenant, &id).await, (1, 7));
    assert_eq!(totals(&tenant, &other).await, (1, 3));
}

#[tokio::test]
async fn the_prune_command_removes_the_batches_of_deleted_bridges_and_says_what_they_are() {
    let (app, tenant) = App::with_tenant().await;
    let (id, _) = deleted_bridge(&app, &tenant).await;
    let prune = |arguments: &[&str]| {
        let url = app.schema.url();
        let mut command = bridgebook();
        let command = command.args(["prune", "--database-url", &url]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let counted = prune(&["--dry-run"]);
    let what = "bridge_batches       12002 to remove, of bridges that callers have deleted";
    assert_eq!(counted.trim(), what);
    assert_eq!(count_batches(&app, &id).await, 12_002);
    let removed = prune(&[]);
    let what = "bridge_batches       12002 removed, of bridges that callers have deleted";
    assert_eq!(removed.trim(), what);
    assert_eq!(count_batches(&app, &id).await, 0);
    assert!(prune(&[]).contains("no stored rows have a retention"));
}

#[tokio::test]
async fn a_deleted_bridge_is_kept_while_a_trigger_keeps_one_of_its_batches() {
    let (app, tenant) = App::with_tenant().await;
    let (id, _) = deleted_bridge(&app, &tenant).await;
    let keep = format!(
        "CREATE TABLE kept AS SELECT batch_id FROM bridge_batches WHERE bridge_id = '{id}' LIMIT 1;
         CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF EXISTS (SELECT FROM kept WHERE batch_id = OLD.batch_id) THEN RETURN NULL; END IF;
             RETURN OLD;
         END $$;
         CREATE TRIGGER keeps BEFORE DELETE ON bridge_batches
             FOR EACH ROW EXECUTE FUNCTION keep()"
    );
    let mut connection = app.schema.connect().await;
    connection.batch_execute(&keep).await.unwrap();
    let prune = async || {
        let url = app.schema.url();
        let prune = tokio::process::Command::from(bridgebook())
            .args(["prune", "--database-url", &url])
            .output();
        prune.await.unwrap()
    };
    let output = prune().await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(count_batches(&app, &id).await, 1);
    let bridges = format!("SELECT count(*) FROM bridge_states WHERE bridge_id = '{id}'");
    assert_eq!(app.schema.count(&bridges).await, 1);

    let allow = "DROP TRIGGER keeps ON bridge_batches";
    connection.batch_execute(allow).await.unwrap();
    let output = prune().await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(count_batches(&app, &id).await, 0);
    assert_eq!(app.schema.count(&bridges).await, 0);
}
