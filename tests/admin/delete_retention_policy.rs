use bridgebook::proto::v1::{DeleteRetentionPolicyRequest, RetainedTable};

use super::{
    client,
    set_retention_policy::{set, wanted},
};
use crate::support::App;

async fn delete(app: &App, namespace: &str) -> bool {
    let request = DeleteRetentionPolicyRequest {
        namespace: namespace.into(),
        table: RetainedTable::FsmTransitions.into(),
    };
    let answer = client(app).delete_retention_policy(request).await;
    answer.unwrap().into_inner().deleted
}

#[tokio::test]
async fn only_the_named_policy_is_deleted() {
    let app = App::start().await;
    set(&app, wanted("a", Some(7200))).await.unwrap();
    set(&app, wanted("b", Some(7200))).await.unwrap();
    assert!(delete(&app, "a").await);
    assert!(!delete(&app, "a").await);
    let left = "SELECT count(*) FROM retention_policies WHERE namespace = 'b'";
    assert_eq!(app.schema.count(left).await, 1);
}
