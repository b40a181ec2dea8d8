use bridgebook::proto::v1::{
    ListRetentionPoliciesRequest, ListRetentionPoliciesResponse, RetainedTable,
    SetRetentionPolicyRequest,
};

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
