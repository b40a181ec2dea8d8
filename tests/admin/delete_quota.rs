use bridgebook::{
    domain::role::Role,
    proto::v1::{DeleteQuotaRequest, delete_quota_request::Subject},
};

use super::{
    client,
    set_quota::{of_namespace, of_token, set},
};
use crate::support::{App, Failure, failure};

async fn delete(app: &App, subject: Subject) -> bool {
    let subject = Some(subject);
    let answer = client(app)
        .delete_quota(DeleteQuotaRequest { subject })
        .await;
    answer.unwrap().into_inner().deleted
}

#[tokio::test]
async fn only_the_named_quota_is_deleted() {
    let app = App::start().await;
    let token = app.issue(Role::Reader, &["a"]).await;
    set(&app, of_namespace("a")).await.unwrap();
    set(&app, of_namespace("b")).await.unwrap();
    set(&app, of_token(&token.id)).await.unwrap();
    for subject in [
        Subject::Namespace("a".into()),
        Subject::TokenId(token.id.clone()),
    ] {
        assert!(delete(&app, subject.clone()).await);
        assert!(!delete(&app, subject).await);
    }
    let left = "SELECT count(*) FROM quotas WHERE subject = 'b'";
    assert_eq!(app.schema.count(left).await, 1);
    assert_eq!(app.schema.count("SELECT count(*) FROM quotas").await, 1);
}

#[tokio::test]
async fn a_quota_is_named_by_its_subject() {
    let app = App::start().await;
    let refused = client(&app)
        .delete_quota(DeleteQuotaRequest::default())
        .await;
    assert_eq!(failure(refused), Failure::invalid(&["subject"]));
}
