use bridgebook::proto::v1::{
    ListRetentionPoliciesRequest, ListRetentionPoliciesResponse, RetainedTable,
    SetRetentionPolicyRequest,
};

use diesel_async::SimpleAsyncConnection;

use super::{
    client,
    set_retention_policy::{set, wanted},
};
use crate::support::{App, Failure, failure};

async fn list(app: &App, page_token: &str) -> ListRetentionPoliciesResponse {
    let request = ListRetentionPoliciesRequest {
        page_size: 2,
        page_token: page_token.into(),
    };
    let answer = client(app).list_retention_policies(request).await;
    answer.unwrap().into_inner()
}

#[tokio::test]
async fn pages_are_ordered_by_namespace_and_table() {
    let app = App::start().await;
    for namespace in ["b", "a-2", "a"] {
        set(&app, wanted(namespace, Some(7200))).await.unwrap();
    }
    let batches = SetRetentionPolicyRequest {
        table: RetainedTable::BridgeBatches.into(),
        ..wanted("a", None)
    };
    set(&app, batches).await.unwrap();
    let first = list(&app, "").await;
    let second = list(&app, &first.next_page_token).await;
    assert_eq!(second.next_page_token, "");
    let all = first.policies.iter().chain(&second.policies);
    let keys: Vec<_> = all.map(|it| (it.namespace.as_str(), it.table())).collect();
    assert_eq!(
        keys,
        [
            ("a", RetainedTable::BridgeBatches),
            ("a", RetainedTable::FsmTransitions),
            ("a-2", RetainedTable::FsmTransitions),
            ("b", RetainedTable::FsmTransitions),
        ]
    );
}

#[tokio::test]
async fn a_page_token_of_another_list_is_refused() {
    let app = App::start().await;
    let request = ListRetentionPoliciesRequest {
        page_token: "made up".into(),
        ..ListRetentionPoliciesRequest::default()
    };
    let refused = client(&app).list_retention_policies(request).await;
    assert_eq!(failure(refused), Failure::invalid(&["page_token"]));
}

#[tokio::test]
async fn a_table_that_only_a_newer_version_knows_is_unspecified() {
    let app = App::start().await;
    set(&app, wanted("b", Some(7200))).await.unwrap();
    let newer =
        "ALTER TABLE retention_policies DROP CONSTRAINT retention_policies_table_name_check;
                 INSERT INTO retention_policies (namespace, table_name, max_age_seconds)
                 VALUES ('a', 'new_table', 7200), ('c', 'new_table', 7200)";
    app.schema
        .connect()
        .await
        .batch_execute(newer)
        .await
        .unwrap();
    let first = list(&app, "").await;
    let second = list(&app, &first.next_page_token).await;
    let all = first.policies.iter().chain(&second.policies);
    let keys: Vec<_> = all.map(|it| (it.namespace.as_str(), it.table())).collect();
    let unknown = RetainedTable::Unspecified;
    let expected = [
        ("a", unknown),
        ("b", RetainedTable::FsmTransitions),
        ("c", unknown),
    ];
    assert_eq!(keys, expected);
}
