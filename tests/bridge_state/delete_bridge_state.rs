use std::collections::HashSet;

use bridgebook::proto::v1::{
    AccumulateBridgeStateRequest, DeleteBridgeStateRequest, UpsertBridgeStateRequest,
};
use diesel_async::SimpleAsyncConnection;
use tonic::{Code, Status};

use super::{accumulate, batch, bridge, client, get, history, new_bridge, totals, upsert};
use crate::support::{App, Failure, Tenant, failure, new_id};

async fn delete(tenant: &Tenant, bridge_id: &str, allow_missing: bool) -> Result<bool, Status> {
    let request = DeleteBridgeStateRequest {
        namespace: tenant.namespace.clone(),
        bridge_id: bridge_id.into(),
        allow_missing,
    };
    let answer = client(tenant).delete_bridge_state(request).await;
    answer.map(|answer| answer.into_inner().deleted)
}

fn no_bridge() -> Failure {
    Failure::new(Code::NotFound, "BRIDGE_NOT_FOUND")
}

#[tokio::test]
async fn a_bridge_is_deleted_with_its_batches_and_its_history_stays() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_bridge(&tenant).await;
    let request = AccumulateBridgeStateRequest {
        current_fsm_state: "ACTIVE".into(),
        ..batch(&tenant, &id, 3)
    };
    accumulate(&tenant, request.clone()).await.unwrap();
    let other = new_bridge(&tenant).await;
    accumulate(&tenant, batch(&tenant, &other, 1))
        .await
        .unwrap();
    assert!(delete(&tenant, &id, false).await.unwrap());
    assert_eq!(failure(get(&tenant, &id).await), no_bridge());
    let moves = [("start", "ACTIVE"), ("delete", "DELETED")];
    assert_eq!(
        history(&tenant, &id).await,
        moves.map(|(event, to)| (event.into(), to.into()))
    );
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM bridge_batches WHERE workflows_processed > 0")
            .await,
        1
    );
    // The batch counts again for a new bridge.
    assert!(accumulate(&tenant, request).await.unwrap().applied);
    assert_eq!(totals(&tenant, &id).await, (1, 3));
    assert_eq!(totals(&tenant, &other).await, (1, 1));
}

#[tokio::test]
async fn a_missing_or_foreign_row_is_not_found_unless_allow_missing() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_bridge(&tenant).await;
    let stranger = app.tenant();
    assert_eq!(failure(delete(&stranger, &id, false).await), no_bridge());
    assert!(!delete(&stranger, &id, true).await.unwrap());
    assert_eq!(
        failure(delete(&tenant, &new_id(), false).await),
        no_bridge()
    );
    assert!(delete(&tenant, &id, true).await.unwrap());
    assert!(!delete(&tenant, &id, true).await.unwrap());
    for bad in ["", "x"] {
        assert_eq!(
            failure(delete(&tenant, bad, true).await),
            Failure::invalid(&["bridge_id"])
        );
        assert_eq!(
            failure(get(&tenant, bad).await),
            Failure::invalid(&["bridge_id"])
        );
    }
}

#[tokio::test]
async fn revisions_go_on_after_a_delete() {
    let (app, tenant) = App::with_tenant().await;
    let id = new_bridge(&tenant).await;
    accumulate(&tenant, batch(&tenant, &id, 1)).await.unwrap();
    delete(&tenant, &id, false).await.unwrap();
    let changed = Failure::new(Code::Aborted, "REVISION_CHANGED");
    let expecting = |revision| UpsertBridgeStateRequest {
        expected_revision: Some(revision),
        total_items_aggregated: Some(7),
        ..bridge(&tenant, &id)
    };
    assert_eq!(failure(upsert(&tenant, expecting(2)).await), changed);
    // A bridge that does not exist has revision 0, also after a delete.
    let again = upsert(&tenant, expecting(0)).await.unwrap();
    assert_eq!(again.bridge_state.unwrap().revision, 3);
    for stale in [0, 1, 2] {
        let stale = UpsertBridgeStateRequest {
            total_items_aggregated: Some(8),
            ..expecting(stale)
        };
        assert_eq!(failure(upsert(&tenant, stale).await), changed);
    }
    delete(&tenant, &id, false).await.unwrap();
    let start = AccumulateBridgeStateRequest {
        current_fsm_state: "ACTIVE".into(),
        ..batch(&tenant, &id, 1)
    };
    let third = accumulate(&tenant, start).await.unwrap();
    assert_eq!(third.bridge_state.unwrap().revision, 4);

    // A bridge of another tenant with the same id is another bridge.
    delete(&tenant, &id, false).await.unwrap();
    let other = app.tenant();
    let theirs = upsert(&other, bridge(&other, &id)).await.unwrap();
    assert_eq!(theirs.bridge_state.unwrap().revision, 1);
    delete(&other, &id, false).await.unwrap();
    let ours = upsert(&tenant, bridge(&tenant, &id)).await.unwrap();
    assert_eq!(ours.bridge_state.unwrap().revision, 5);
}

/// Replicas store and delete the same bridge at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn no_revision_of_a_bridge_repeats() {
    let (app, tenant) = App::with_tenant().await;
    let other = app.replica().await;
    let elsewhere = Tenant {
        channel: other.channel.clone(),
        ..tenant.clone()
    };
    let id = new_id();
    let callers = [&tenant, &elsewhere, &tenant, &elsewhere];
    let callers = callers.into_iter().enumerate().map(|(caller, tenant)| {
        let id = &id;
        async move {
            let mut revisions = Vec::new();
            for round in 0..50 {
                let change = UpsertBridgeStateRequest {
                    total_items_aggregated: Some(round * 4 + i64::try_from(caller).unwrap()),
                    ..bridge(tenant, id)
                };
                let changed = upsert(tenant, change).await.unwrap();
                let revision = changed.bridge_state.unwrap().revision;
                revisions.extend(changed.applied.then_some(revision));
                delete(tenant, id, true).await.unwrap();
            }
            revisions
        }
    });
    let revisions = futures_util::future::join_all(callers).await.concat();
    let distinct: HashSet<i64> = revisions.iter().copied().collect();
    assert!(revisions.len() > 100, "only {} changes", revisions.len());
    assert_eq!(distinct.len(), revisions.len());
}

/// Batches are added while bridges are deleted. A remaining bridge counts exactly its own
/// batches.
#[tokio::test(flavor = "multi_thread")]
async fn no_batch_outlives_its_bridge() {
    let (app, tenant) = App::with_tenant().await;
    let other = app.replica().await;
    let elsewhere = Tenant {
        channel: other.channel.clone(),
        ..tenant.clone()
    };
    for _ in 0..20 {
        let id = new_bridge(&tenant).await;
        let adds = (0..10).map(|_| {
            let request = AccumulateBridgeStateRequest {
                current_fsm_state: "ACTIVE".into(),
                ..batch(&tenant, &id, 1)
            };
            accumulate(&tenant, request)
        });
        let (_, deleted) = tokio::join!(
            futures_util::future::join_all(adds),
            delete(&elsewhere, &id, false)
        );
        assert!(deleted.unwrap());
        let noted = format!(
            "SELECT count(*) FROM bridge_batches
              WHERE bridge_id = '{id}' AND workflows_processed > 0"
        );
        let workflows = get(&tenant, &id)
            .await
            .map_or(0, |it| it.total_workflows_processed);
        assert_eq!(app.schema.count(&noted).await, workflows);
    }
}

/// Changes and deletions of many bridges in many orders wait for each other without a
/// deadlock, which PostgreSQL would resolve by failing one after a second.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_and_deletions_do_not_deadlock() {
    let (app, tenant) = App::with_tenant().await;
    for _ in 0..5 {
        let bridges = futures_util::future::join_all((0..40).map(|_| new_bridge(&tenant))).await;
        let adds = bridges.iter().map(|id| {
            let request = AccumulateBridgeStateRequest {
                current_fsm_state: "ACTIVE".into(),
                ..batch(&tenant, id, 1)
            };
            accumulate(&tenant, request)
        });
        let deletes = bridges.iter().map(|id| delete(&tenant, id, false));
        let (added, deleted) = tokio::join!(
            futures_util::future::join_all(adds),
            futures_util::future::join_all(deletes)
        );
        assert!(added.iter().all(Result::is_ok));
        assert!(deleted.iter().all(Result::is_ok));
    }
    // The service retries after a deadlock. PostgreSQL's own count includes other tests.
    let retries = "bridgebook_database_retries_total";
    let retries = app.figures().sum(retries, &[("cause", "transient")]);
    assert_eq!(retries, 0.0);
}

/// A trigger of the operator makes PostgreSQL end the delete of one bridge's batches.
#[tokio::test]
async fn a_delete_that_takes_too_long_fails_alone_and_keeps_the_batches() {
    let (app, tenant) = App::with_tenant().await;
    let [slow, other] = [new_bridge(&tenant).await, new_bridge(&tenant).await];
    let counted = batch(&tenant, &slow, 7);
    accumulate(&tenant, counted.clone()).await.unwrap();
    let before = totals(&tenant, &slow).await;
    let sql = format!(
        "CREATE FUNCTION delay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF OLD.bridge_id = '{slow}' THEN PERFORM pg_sleep(3600); END IF;
             RETURN OLD;
         END $$;
         CREATE TRIGGER is_slow BEFORE DELETE ON bridge_batches
             FOR EACH ROW EXECUTE FUNCTION delay()"
    );
    let mut connection = app.schema.connect().await;
    connection.batch_execute(&sql).await.unwrap();
    let (refused, deleted) = tokio::join!(
        delete(&tenant, &slow, false),
        delete(&tenant, &other, false)
    );
    let timeout = Failure::new(Code::DeadlineExceeded, "STATEMENT_TIMEOUT");
    assert_eq!(failure(refused), timeout);
    assert!(deleted.unwrap());
    // The bridge still knows which batches it has counted.
    accumulate(&tenant, counted).await.unwrap();
    assert_eq!(totals(&tenant, &slow).await, before);
}
