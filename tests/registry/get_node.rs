use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;

use super::{get, new_node, register, try_register};
use crate::support::{App, Failure, failure};

#[tokio::test]
async fn every_tenant_reads_every_node() {
    let (app, tenant) = App::with_tenant().await;
    let node = register(&tenant, "reducer-1").await;
    assert_eq!(get(&tenant, "reducer-1").await.unwrap(), node);
    assert_eq!(get(&app.tenant(), "reducer-1").await.unwrap(), node);
}

#[tokio::test]
async fn concurrent_callers_each_get_their_node() {
    let (_app, tenant) = App::with_tenant().await;
    let ids: Vec<_> = (0..50).map(|number| format!("node-{number}")).collect();
    join_all(ids.iter().map(|id| register(&tenant, id))).await;
    let calls = (0..300).map(|number| {
        let id = format!("node-{}", number % 100);
        let tenant = &tenant;
        async move { (number, get(tenant, &id).await) }
    });
    for (number, answer) in join_all(calls).await {
        match number % 100 {
            known @ ..50 => assert_eq!(answer.unwrap().node_id, format!("node-{known}")),
            _ => assert_eq!(failure(answer), Failure::no_node()),
        }
    }
}

/// Earlier versions registered such nodes.
#[tokio::test]
async fn a_node_with_an_invisible_character_is_readable_but_no_new_one_registers() {
    let (app, tenant) = App::with_tenant().await;
    register(&tenant, "pay-pal").await;
    let invisible = "pay\u{200b}pal";
    let refused = failure(try_register(&tenant, new_node(&tenant, invisible)).await);
    assert_eq!(refused, Failure::invalid(&["node_id"]));
    let rename = format!("UPDATE node_registrations SET node_id = '{invisible}'");
    let mut owner = app.schema.connect().await;
    owner.batch_execute(&rename).await.unwrap();
    assert_eq!(get(&tenant, invisible).await.unwrap().node_id, invisible);
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let longest = "a".repeat(256);
    for node_id in ["", "a\0b", "a ", &longest] {
        let failed = failure(get(&tenant, node_id).await);
        assert_eq!(failed, Failure::invalid(&["node_id"]));
    }
}
