use bridgebook::proto::v1::{DeregisterNodeRequest, DeregisterNodeResponse};
use futures_util::future::join_all;
use tonic::Status;

use super::{Pending, client, get, journal, register};
use crate::support::{App, Failure, Tenant, failure};

async fn deregister(
    tenant: &Tenant,
    node_id: &str,
    allow_missing: bool,
) -> Result<DeregisterNodeResponse, Status> {
    let request = DeregisterNodeRequest {
        namespace: tenant.namespace.clone(),
        node_id: node_id.into(),
        allow_missing,
    };
    let answer = client(tenant).deregister_node(request).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn the_node_is_removed_and_the_journal_records_it() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "reducer-1").await;
    let kept = register(&tenant, "reducer-2").await;
    let answer = deregister(&tenant, "reducer-1", false).await.unwrap();
    assert!(answer.deregistered);
    assert_eq!(failure(get(&tenant, "reducer-1").await), Failure::no_node());
    assert_eq!(get(&tenant, "reducer-2").await.unwrap(), kept);
    register(&tenant, "reducer-1").await;
    assert_eq!(
        journal(&app, &node).await,
        [
            ">HEALTHY register",
            "HEALTHY>DEREGISTERED deregister",
            ">HEALTHY register"
        ]
    );
}

#[tokio::test]
async fn a_missing_row_is_not_found_unless_allow_missing() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "reducer-1").await;
    let stranger = app.tenant();
    let failed = failure(deregister(&stranger, "reducer-1", false).await);
    assert_eq!(failed, Failure::no_node());
    let answer = deregister(&stranger, "reducer-1", true).await.unwrap();
    assert!(!answer.deregistered);
    assert_eq!(get(&tenant, "reducer-1").await.unwrap(), node);
    let answer = deregister(&tenant, "reducer-1", true).await.unwrap();
    assert!(answer.deregistered);
    let answer = deregister(&tenant, "reducer-1", true).await.unwrap();
    assert!(!answer.deregistered);
    let failed = failure(deregister(&tenant, "reducer-1", false).await);
    assert_eq!(failed, Failure::no_node());
}

#[tokio::test]
async fn one_of_many_concurrent_calls_removes_the_node() {
    let (app, tenant) = App::with_tenant().await;
    register(&tenant, "reducer-1").await;
    let calls = join_all((0..30).map(|_| deregister(&tenant, "reducer-1", true))).await;
    let removed = calls
        .into_iter()
        .filter(|answer| answer.as_ref().unwrap().deregistered);
    assert_eq!(removed.count(), 1);
    let rows = "SELECT count(*) FROM fsm_transitions WHERE to_state = 'DEREGISTERED'";
    assert_eq!(app.schema.count(rows).await, 1);
}

#[tokio::test]
async fn the_journal_has_the_state_that_another_replica_set_last() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "reducer-1").await;
    let change = "UPDATE node_registrations SET health_status = 'DEGRADED'";
    let pending = Pending::begin(&app, change).await;
    let call = deregister(&tenant, "reducer-1", false);
    let (answer, ()) = tokio::join!(call, pending.commit_when_waited_for(&app));
    assert!(answer.unwrap().deregistered);
    assert_eq!(failure(get(&tenant, "reducer-1").await), Failure::no_node());
    assert_eq!(
        journal(&app, &node).await,
        [">HEALTHY register", "DEGRADED>DEREGISTERED deregister"]
    );
}

#[tokio::test]
async fn a_released_name_can_be_taken_by_any_tenant() {
    let (app, tenant) = App::with_tenant().await;
    register(&tenant, "reducer-1").await;
    deregister(&tenant, "reducer-1", false).await.unwrap();
    let heir = app.tenant();
    assert_eq!(register(&heir, "reducer-1").await.owner, heir.namespace);
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    for node_id in ["", "a\0b", " a"] {
        let failed = failure(deregister(&tenant, node_id, true).await);
        assert_eq!(failed, Failure::invalid(&["node_id"]));
    }
}
